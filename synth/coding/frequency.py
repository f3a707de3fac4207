"""Images in frequencies: a blocked cosine transform, with steps that grow with the frequency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from synth.coding.base import Grid, Shape, check_number, round_through
from synth.coding.contexts import BAND_SPREADS, band_contexts, band_order
from synth.coding.errors import CodingError

# What a coefficient can be at most, in steps; the counts of a context have a place for each.
_LARGEST = 1 << 10


@dataclass(frozen=True)
class Frequency:
    """Coefficients of an orthonormal cosine transform (DCT-II) on a grid.

    Parameters are coefficients in units of their steps, [n, c, h, w], block by block as the pixels
    lie. The step of the frequency (i, j) of a block of side b is
    `step * (1 + slope * 8 (i + j) / b)`, in pixels; colours are first turned into a luminance and
    two colour differences, whose steps are `chroma` times as large.

    Error: half a step for each coefficient, so at most half the norm of all steps for a block;
    `decode` also clamps to [0, 1], which brings no pixel further away.
    Source: JPEG (ITU-T T.81) for the transform and the growing steps; FreD 2023 for distilled sets
    in frequencies.

    Attributes:
        shape: [n, c, h, w] of the images; c is 1 or 3.
        step: of the lowest frequency, above 0.
        slope: how the steps grow, 0 or above.
        block: side of a block, a divisor of h and w; 0 for the whole of a square image.
        chroma: how much coarser colours are, 1 or above.
        largest: magnitude that no coefficient passes, in steps.
    """

    shape: Shape
    step: float = 0.3
    slope: float = 0.5
    block: int = 0
    chroma: float = 2.0
    largest: int = 64

    def __post_init__(self) -> None:
        check_number("step", self.step, 1e-4, 100.0)
        check_number("slope", self.slope, 0.0, 100.0)
        check_number("chroma", self.chroma, 1.0, 100.0)
        check_number("largest", self.largest, 1, _LARGEST)
        _, c, h, w = self.shape
        side = self.block or h
        if c not in (1, 3) or side < 1 or h % side or w % side:
            raise CodingError(
                f"blocks of side {side} do not tile images of {c}x{h}x{w}; a side must divide "
                "both, and there must be 1 or 3 channels"
            )

    def start(self, images: Tensor) -> Tensor:
        """The coefficients of the pixels, in steps."""
        blocks = self._cut(self._to_luminance(images - 0.5))
        dct = _cosines(self._side).to(images)
        return self._join(dct @ blocks @ dct.T / self._steps.to(images))

    def decode(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.decode`."""
        return self.decode_unclamped(parameters).clamp(0, 1)

    def decode_unclamped(self, parameters: Tensor) -> Tensor:
        """The same with values outside [0, 1], for what is no image by itself."""
        inside = parameters.clamp(-self.largest, self.largest)
        blocks = self._cut(round_through(inside)) * self._steps.to(parameters)
        dct = _cosines(self._side).to(parameters)
        return self._from_luminance(self._join(dct.T @ blocks @ dct)) + 0.5

    def bits(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.bits`."""
        return self._grid.bits(self._ordered(parameters.clamp(-self.largest, self.largest)))

    def pack(self, parameters: Tensor, coder: str = "arithmetic") -> bytes:
        """See `ImageCoding.pack`."""
        inside = parameters.detach().clamp(-self.largest, self.largest).round()
        return self._grid.pack(self._ordered(inside).long().cpu().numpy(), coder)

    def unpack(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """See `ImageCoding.unpack`."""
        return self.decode(self.unpack_parameters(body, coder))

    def unpack_parameters(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """The rounded parameters [n, c, h, w] of `pack`."""
        n, c, h, w = self.shape
        found = torch.from_numpy(self._grid.unpack(body, (n, c * h * w), coder))
        blocks = torch.empty(n, c, h // self._side, w // self._side, self._side, self._side)
        channel, row, column, i, j = self._order.T
        blocks[:, channel, row, column, i, j] = found.float()
        return self._join(blocks)

    @property
    def _side(self) -> int:
        return self.block or self.shape[2]

    @property
    def _steps(self) -> Tensor:
        """[c, 1, 1, b, b], in pixels."""
        growth = torch.arange(self._side) * 8 / self._side
        steps = self.step * (1 + self.slope * (growth[:, None] + growth))
        coarser = torch.tensor([1.0, self.chroma, self.chroma][: self.shape[1]])
        return coarser.view(-1, 1, 1, 1, 1) * steps

    @property
    def _order(self) -> Tensor:
        _, c, h, w = self.shape
        return torch.from_numpy(band_order(c, h // self._side, w // self._side, self._side))

    @property
    def _grid(self) -> Grid:
        _, c, h, w = self.shape
        side = self._side
        contexts = band_contexts(c, h // side, w // side, side, self.largest)
        return Grid(-self.largest, self.largest, 0, BAND_SPREADS, contexts)

    def _ordered(self, parameters: Tensor) -> Tensor:
        """[n, c * h * w], low frequencies first."""
        channel, row, column, i, j = self._order.T.to(parameters.device)
        return self._cut(parameters)[:, channel, row, column, i, j]

    def _cut(self, images: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, rows, columns, b, b]."""
        n, c, h, w = self.shape
        side = self._side
        return images.reshape(n, c, h // side, side, w // side, side).transpose(3, 4)

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
