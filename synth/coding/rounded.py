"""Pixels rounded to a few bits, and coded in the context of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synth.coding.adaptive import Coder
from synth.coding.alphabet import levels_alphabet
from synth.coding.base import (
    Grid,
    Shape,
    check_groups,
    check_integer,
    check_shape,
    round_through,
    whole,
)
from synth.coding.contexts import PixelContexts


@dataclass(frozen=True)
class Rounded:
    """Every pixel on a grid of 2^bits values from 0 to 1, both included.

    Error: at most 1 / (2 (2^bits - 1)) for pixels in [0, 1].
    Source: QuADD 2026 and DATM with post-training quantisation 2026, which find 2 to 3 bits best.

    Attributes:
        shape: [n, c, h, w] of the images.
        depth: bits of a pixel, 1 to 8.
        groups: the images are so many runs of equal length whose images are alike, such as
            classes; a divisor of n. It only makes the bytes fewer.
    """

    shape: Shape
    depth: int = 2
    groups: int = 1

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_integer("depth", self.depth, 1, 8)
        check_groups(self.groups, self.shape)

    def start(self, images: Tensor) -> Tensor:
        """The pixels."""
        return images.clone()

    def decode(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.decode`."""
        return round_through(parameters.clamp(0, 1) * self._top) / self._top

    def bits(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.bits`."""
        return self._grid.bits(parameters.clamp(0, 1).reshape(self.shape[0], -1) * self._top)

    def pack(self, parameters: Tensor, coder: str = "arithmetic") -> bytes:
        """See `ImageCoding.pack`."""
        levels = whole(parameters.detach().clamp(0, 1) * self._top)
        return self._grid.pack(levels.reshape(self.shape[0], -1), coder)

    def unpack(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """See `ImageCoding.unpack`."""
        n, c, h, w = self.shape
        levels = self._grid.unpack(body, (n, c * h * w), coder)
        return torch.from_numpy(levels).reshape(self.shape).float() / self._top

    @property
    def _top(self) -> int:
        return 2**self.depth - 1

    @property
    def _grid(self) -> Grid:
        levels, (_, c, h, w) = 2**self.depth, self.shape
        return Grid(Coder(levels_alphabet(levels), PixelContexts(c, h, w, levels), self.groups))
