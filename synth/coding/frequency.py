"""Images in frequencies: a blocked cosine transform, with steps that grow with the frequency."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

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
from synth.coding.contexts import BandContexts, band_order
from synth.coding.errors import CodingError

# What a coefficient can be at most, in steps; the counts of a context have a place for each.
_LARGEST = 1 << 10


@dataclass(frozen=True)
class Frequency:
    """Coefficients of an orthonormal cosine transform (DCT-II) on a grid.

    Parameters are coefficients in units of their steps, [n, c, h, w], block by block as the pixels
    lie. The step of the frequency (i, j) of a block of a x b is
    `step * (1 + slope * 8 (i / a + j / b))`, in pixels; colours are first turned into a luminance
    and two colour differences, whose steps are `chroma` times as large.

    Error: half a step for each coefficient that `largest` does not clip, so at most half the norm
    of all steps for a block; `decode` also clamps to [0, 1], which brings no pixel further away.
    Source: JPEG (ITU-T T.81) for the transform and the growing steps; FreD 2023 for distilled sets
    in frequencies.

    Attributes:
        shape: [n, c, h, w] of the images; c is 1 or 3.
        step: of the lowest frequency, above 0.
        slope: how the steps grow, 0 or above.
        block: side of a block, a divisor of h and w; 0 for the whole image.
        chroma: how much coarser colours are, 1 or above.
        largest: magnitude that no coefficient passes, in steps; 1 to 1024.
        groups: the images are so many runs of equal length whose images are alike, such as
            classes; a divisor of n. It only makes the bytes fewer.
    """

    shape: Shape
    step: float = 0.3
    slope: float = 0.5
    block: int = 0
    chroma: float = 2.0
    largest: int = 64
    groups: int = 1

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_number("step", self.step, 1e-4, 100.0)
        check_number("slope", self.slope, 0.0, 100.0)
        check_number("chroma", self.chroma, 1.0, 100.0)
        check_integer("largest", self.largest, 1, _LARGEST)
        check_groups(self.groups, self.shape)
        _, c, h, w = self.shape
        check_integer("block", self.block, 0, max(h, w))
        if self.block and (h % self.block or w % self.block):
            raise CodingError(
                f"blocks of side {self.block} do not tile {h}x{w}; a side must divide both"
            )
        if c not in (1, 3):
            raise CodingError(f"images of {c} channels; frequencies keep 1 or 3")

    def reaching(self) -> Frequency:
        """The same with a `largest` that no pixels in [0, 1] pass, up to 1024, where this is less.

        No coefficient of a block is larger than the norm of its pixels less one half.

        >>> Frequency((1, 1, 28, 28), step=0.1).reaching().largest
        140
        """
        _, _, a, b = self._tiles
        norm = 0.5 * math.sqrt(self.shape[1] * a * b)
        needed = min(_LARGEST, math.ceil(norm / self.step))
        return replace(self, largest=max(self.largest, needed))

    def start(self, images: Tensor) -> Tensor:
        """The coefficients of the pixels, in steps."""
        blocks = self._cut(self._to_luminance(images - 0.5))
        down, across = (_cosines(side).to(images) for side in self._sides)
        return self._join(down @ blocks @ across.T / self._steps.to(images))

    def decode(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.decode`."""
        return self.decode_unclamped(parameters).clamp(0, 1)

    def decode_unclamped(self, parameters: Tensor) -> Tensor:
        """The same with values outside [0, 1], for what is no image by itself."""
        inside = parameters.clamp(-self.largest, self.largest)
        blocks = self._cut(round_through(inside)) * self._steps.to(parameters)
        down, across = (_cosines(side).to(parameters) for side in self._sides)
        return self._from_luminance(self._join(down.T @ blocks @ across)) + 0.5

    def bits(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.bits`."""
        return self._grid.bits(self._ordered(parameters.clamp(-self.largest, self.largest)))

    def pack(self, parameters: Tensor, coder: str = "arithmetic") -> bytes:
        """See `ImageCoding.pack`."""
        inside = parameters.detach().clamp(-self.largest, self.largest)
        return self._grid.pack(whole(self._ordered(inside)), coder)

    def unpack(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """See `ImageCoding.unpack`."""
        return self.decode(self.unpack_parameters(body, coder))

    def unpack_parameters(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """The rounded parameters [n, c, h, w] of `pack`."""
        n, c, h, w = self.shape
        found = torch.from_numpy(self._grid.unpack(body, (n, c * h * w), coder))
        blocks = torch.empty(n, c, *self._tiles)
        channel, row, column, i, j = self._order.T
        blocks[:, channel, row, column, i, j] = found.float()
        return self._join(blocks)

    @property
    def _sides(self) -> tuple[int, int]:
        """Height and width of a block."""
        _, _, h, w = self.shape
        return (self.block, self.block) if self.block else (h, w)

    @property
    def _tiles(self) -> tuple[int, int, int, int]:
        """Rows and columns of blocks, height and width of one."""
        (_, _, h, w), (a, b) = self.shape, self._sides
        return h // a, w // b, a, b

    @property
    def _steps(self) -> Tensor:
        """[c, 1, 1, a, b], in pixels."""
        down, across = (torch.arange(side) * 8 / side for side in self._sides)
        steps = self.step * (1 + self.slope * (down[:, None] + across))
        coarser = torch.tensor([1.0, self.chroma, self.chroma][: self.shape[1]])
        return coarser.view(-1, 1, 1, 1, 1) * steps

    @property
    def _order(self) -> Tensor:
        return torch.from_numpy(band_order(self.shape[1], *self._tiles))

    @property
    def _grid(self) -> Grid:
        contexts = BandContexts(self.shape[1], *self._tiles)
        coder = Coder(signed_alphabet(self.largest), contexts, self.groups)
        return Grid(coder, -self.largest)

    def _ordered(self, parameters: Tensor) -> Tensor:
        """[n, c * h * w], low frequencies first."""
        channel, row, column, i, j = self._order.T.to(parameters.device)
        return self._cut(parameters)[:, channel, row, column, i, j]

    def _cut(self, images: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, rows, columns, a, b]."""
        n, c, _, _ = self.shape
        rows, columns, a, b = self._tiles
        return images.reshape(n, c, rows, a, columns, b).transpose(3, 4)

    def _join(self, blocks: Tensor) -> Tensor:
        return blocks.transpose(3, 4).reshape(self.shape)

    def _to_luminance(self, images: Tensor) -> Tensor:
        if self.shape[1] == 1:
            return images
        return torch.einsum("lc,nchw->nlhw", _luminance().to(images), images)

    def _from_luminance(self, images: Tensor) -> Tensor:
        if self.shape[1] == 1:
            return images
        return torch.einsum("lc,nlhw->nchw", _luminance().to(images), images)


@lru_cache(maxsize=8)
def _cosines(side: int) -> Tensor:
    """The orthonormal DCT-II of `side` values, [side, side]."""
    at = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi * (2 * at + 1) * at[:, None] / (2 * side)) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


@lru_cache(maxsize=1)
def _luminance() -> Tensor:
    """An orthonormal change of colours, [3, 3]: the mean, red against blue, green against both."""
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]])
    return rows / rows.norm(dim=1, keepdim=True)
