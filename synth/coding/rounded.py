"""Pixels rounded to a few bits, and coded in the context of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synth.coding.base import Grid, Shape, check_number, round_through
from synth.coding.contexts import pixel_context_count, pixel_contexts


@dataclass(frozen=True)
class Rounded:
    """Every pixel on a grid of 2^bits values from 0 to 1, both included.

    Error: at most 1 / (2 (2^bits - 1)) for pixels in [0, 1].
    Source: QuADD 2026 and DATM with post-training quantisation 2026, which find 2 to 3 bits best.

    Attributes:
        shape: [n, c, h, w] of the images.
        depth: bits of a pixel, 1 to 8.
    """

    shape: Shape
    depth: int = 2

    def __post_init__(self) -> None:
        check_number("depth", self.depth, 1, 8)

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
        levels = (parameters.detach().clamp(0, 1) * self._top).round()
        return self._grid.pack(levels.reshape(self.shape[0], -1).long().cpu().numpy(), coder)

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
        return Grid(
            0,
            levels - 1,
            0,
            (2 * levels,) * pixel_context_count(levels),
            pixel_contexts(c, h, w, levels),
        )
