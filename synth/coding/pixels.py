"""Pixels as float32: images kept as the field counts them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synth.coding.base import Shape, check_finite, check_shape
from synth.coding.errors import CodingError


@dataclass(frozen=True)
class Pixels:
    """Every value in 4 bytes, also outside [0, 1]. Error: none.

    Attributes:
        shape: [n, c, h, w] of the images.
    """

    shape: Shape

    def __post_init__(self) -> None:
        check_shape(self.shape)

    def start(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images.clone()

    def decode(self, parameters: Tensor) -> Tensor:
        """The parameters themselves."""
        return parameters

    def bits(self, parameters: Tensor) -> Tensor:
        """32 for each value; no parameter changes it."""
        return parameters.new_tensor(32.0 * parameters.numel())

    def pack(self, parameters: Tensor, coder: str = "arithmetic") -> bytes:
        """The values, little-endian; the coder makes no difference."""
        check_finite(parameters)
        return parameters.detach().cpu().numpy().astype("<f4").tobytes()

    def unpack(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """See `ImageCoding.unpack`."""
        wanted = 4 * int(np.prod(self.shape))
        if len(body) != wanted:
            raise CodingError(f"{len(body)} bytes of pixels, but the images need {wanted}")
        values = torch.from_numpy(np.frombuffer(body, "<f4").reshape(self.shape).copy())
        check_finite(values)
        return values
