"""Images as sums of few bases that all of them share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synth.coding.adaptive import Coder
from synth.coding.alphabet import signed_alphabet
from synth.coding.base import (
    Grid,
    Shape,
    check_groups,
    check_integer,
    check_number,
    check_shape,
    round_through,
    whole,
)
from synth.coding.contexts import ColumnContexts
from synth.coding.errors import CodingError
from synth.coding.frequency import Frequency

# In front of the coefficients: how many bytes they take.
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Bases:
    """Pixels = 0.5 + coefficients @ bases, coefficients [n, r] and bases [r, c, h, w].

    Both are kept on grids: the bases in frequencies, like images, the coefficients with one step.
    Parameters are one vector: the coefficients in steps [n * r], then the bases' frequencies in
    steps [r * c * h * w].

    Error: what the span of the bases leaves of an image, and half a step for each number.
    Source: RTP (Deng and Russakovsky 2022), HaBa (Liu et al. 2022), SPEED 2025.

    Attributes:
        shape: [n, c, h, w] of the images.
        count: bases r, at most n and the values of an image.
        step: of the bases' lowest frequency, for bases of the scale of images.
        slope: as in `Frequency`.
        scale_step: of the coefficients.
        largest: magnitude that no number passes, in steps; 1 to 1024.
        groups: the images are so many runs of equal length whose images are alike, such as
            classes; a divisor of n. It only makes the bytes fewer.
    """

    shape: Shape
    count: int = 16
    step: float = 0.1
    slope: float = 0.5
    scale_step: float = 0.05
    largest: int = 64
    groups: int = 1

    def __post_init__(self) -> None:
        check_shape(self.shape)
        n, c, h, w = self.shape
        check_integer("count", self.count, 1, min(n, c * h * w))
        check_number("scale_step", self.scale_step, 1e-4, 100.0)
        check_groups(self.groups, self.shape)
        # Refuses the settings of the bases.
        _ = self._frequency

    def start(self, images: Tensor) -> Tensor:
        """The best bases and coefficients: a truncated singular value decomposition."""
        centred = images.reshape(self.shape[0], -1) - 0.5
        left, values, right = torch.linalg.svd(centred.double(), full_matrices=False)
        coefficients = (left * values)[:, : self.count].to(images)
        bases = right[: self.count].to(images)
        # Coefficients of about 1 and bases of the scale of images: steps then mean the same.
        scale = coefficients.square().mean(dim=0).sqrt().clamp_min(1e-6)
        kept = self._frequency.start((bases * scale[:, None]).reshape(self._base_shape) + 0.5)
        return torch.cat([(coefficients / scale / self.scale_step).flatten(), kept.flatten()])

    def decode(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.decode`."""
        coefficients, kept = self._split(parameters)
        inside = coefficients.clamp(-self.largest, self.largest)
        bases = self._frequency.decode_unclamped(kept) - 0.5
        summed = round_through(inside) * self.scale_step @ bases.flatten(1)
        return (summed.reshape(self.shape) + 0.5).clamp(0, 1)

    def bits(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.bits`."""
        coefficients, kept = self._split(parameters)
        inside = coefficients.clamp(-self.largest, self.largest)
        return self._grid.bits(inside) + self._frequency.bits(kept) + 8.0 * _LENGTH_BYTES

    def pack(self, parameters: Tensor, coder: str = "arithmetic") -> bytes:
        """See `ImageCoding.pack`."""
        coefficients, kept = self._split(parameters.detach())
        first = self._grid.pack(whole(coefficients.clamp(-self.largest, self.largest)), coder)
        return (
            len(first).to_bytes(_LENGTH_BYTES, "little") + first + self._frequency.pack(kept, coder)
        )

    def unpack(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """See `ImageCoding.unpack`."""
        end = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES], "little")
        if len(body) < end:
            raise CodingError(f"{len(body)} bytes, but the coefficients alone need {end}")
        found = self._grid.unpack(body[_LENGTH_BYTES:end], (self.shape[0], self.count), coder)
        coefficients = torch.from_numpy(found).float()
        kept = self._frequency.unpack_parameters(body[end:], coder)
        return self.decode(torch.cat([coefficients.flatten(), kept.flatten()]))

    @property
    def _base_shape(self) -> Shape:
        return (self.count, *self.shape[1:])

    @property
    def _frequency(self) -> Frequency:
        return Frequency(self._base_shape, self.step, self.slope, largest=self.largest)

    @property
    def _grid(self) -> Grid:
        coder = Coder(signed_alphabet(self.largest), ColumnContexts(self.count), self.groups)
        return Grid(coder, -self.largest)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [n, r] and the bases' frequencies [r, c, h, w], in steps."""
        numbers = self.shape[0] * self.count
        coefficients = parameters[:numbers].reshape(self.shape[0], self.count)
        return coefficients, parameters[numbers:].reshape(self._base_shape)
