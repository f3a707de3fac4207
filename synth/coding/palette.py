"""Images in few colours, which are learned with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synth.coding.adaptive import Coder
from synth.coding.alphabet import levels_alphabet
from synth.coding.base import Grid, Shape, check_finite, check_groups, check_integer, check_shape
from synth.coding.contexts import PixelContexts
from synth.coding.errors import CodingError

_ROUNDS = 20


@dataclass(frozen=True)
class Palette:
    """Every pixel is one of `colours` colours of the set; the colours are float32.

    Parameters are one vector: the pixels [n * c * h * w], then the colours [colours * c]. A pixel
    takes the nearest colour. Gradients go to the pixels as if they were kept, and to the colour
    that each took.

    Error: of each pixel, its distance to the nearest colour.
    Source: AutoPalette 2024 for distilled sets; van den Oord et al. 2017 for the gradient.

    Attributes:
        shape: [n, c, h, w] of the images.
        colours: 2 to 256.
        groups: the images are so many runs of equal length whose images are alike, such as
            classes; a divisor of n. It only makes the bytes fewer.
    """

    shape: Shape
    colours: int = 8
    groups: int = 1

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_integer("colours", self.colours, 2, 256)
        check_groups(self.groups, self.shape)

    def start(self, images: Tensor) -> Tensor:
        """The pixels, and colours by Lloyd's algorithm from pixels at even ranks of brightness."""
        pixels = images.permute(0, 2, 3, 1).reshape(-1, self.shape[1])
        ranks = pixels.sum(dim=1).argsort()
        places = torch.linspace(0, len(pixels) - 1, self.colours, device=images.device).long()
        colours = pixels[ranks[places]].clone()
        # Many images are black at the border: equal starts would leave colours unused.
        colours += torch.linspace(0, 1e-3, self.colours, device=images.device)[:, None]
        for _ in range(_ROUNDS):
            taken = _nearest(pixels, colours)
            sums = torch.zeros_like(colours).index_add_(0, taken, pixels)
            counts = torch.bincount(taken, minlength=self.colours)[:, None]
            colours = torch.where(counts > 0, sums / counts.clamp_min(1), colours)
        return torch.cat([images.flatten(), colours.flatten()])

    def decode(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.decode`."""
        images, colours = self._split(parameters)
        pixels = images.permute(0, 2, 3, 1)
        taken = colours[_nearest(pixels.detach().reshape(-1, self.shape[1]), colours.detach())]
        found = taken.reshape(pixels.shape) + (pixels - pixels.detach())
        return found.permute(0, 3, 1, 2).clamp(0, 1)

    def bits(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.bits`; the slope is that between neighbours in order of brightness."""
        images, colours = self._split(parameters)
        pixels = images.permute(0, 2, 3, 1).reshape(-1, self.shape[1])
        levels = _nearest(pixels.detach(), colours.detach()).to(pixels)
        # Between two colours, a pixel moves from one rank to the next.
        spread = float((colours.detach().max() - colours.detach().min()).clamp_min(1e-6))
        moved = (pixels - pixels.detach()).mean(dim=1) * (self.colours - 1) / spread
        values = (levels + moved).reshape(self.shape[0], -1)
        return self._grid.bits(values) + 32.0 * colours.numel()

    def pack(self, parameters: Tensor, coder: str = "arithmetic") -> bytes:
        """Colours in order of brightness, float32, and the coded choice of each pixel."""
        check_finite(parameters)
        images, colours = self._split(parameters.detach())
        pixels = images.permute(0, 2, 3, 1).reshape(-1, self.shape[1])
        taken = _nearest(pixels, colours).reshape(self.shape[0], -1).cpu().numpy()
        return colours.cpu().numpy().astype("<f4").tobytes() + self._grid.pack(taken, coder)

    def unpack(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """See `ImageCoding.unpack`."""
        n, c, h, w = self.shape
        head = 4 * self.colours * c
        if len(body) < head:
            raise CodingError(f"{len(body)} bytes, but the colours alone need {head}")
        colours = torch.from_numpy(np.frombuffer(body[:head], "<f4").reshape(-1, c).copy())
        check_finite(colours)
        taken = self._grid.unpack(body[head:], (n, h * w), coder)
        return colours[torch.from_numpy(taken)].reshape(n, h, w, c).permute(0, 3, 1, 2).clamp(0, 1)

    @property
    def _grid(self) -> Grid:
        (_, _, h, w), count = self.shape, self.colours
        return Grid(Coder(levels_alphabet(count), PixelContexts(1, h, w, count), self.groups))

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [n, c, h, w] and colours [colours, c], in order of brightness."""
        pixels = parameters[: math.prod(self.shape)].reshape(self.shape)
        colours = parameters[pixels.numel() :].reshape(self.colours, self.shape[1])
        return pixels, colours[colours.detach().sum(dim=1).argsort(stable=True)]


def _nearest(pixels: Tensor, colours: Tensor) -> Tensor:
    """The nearest colour of each pixel, [m]; the first of those that are as near."""
    # Not by a matrix product, whose rounding depends on the number of pixels and threads.
    mode = "donot_use_mm_for_euclid_dist"
    parts = pixels.split(1 << 16)
    return torch.cat([torch.cdist(part, colours, compute_mode=mode).argmin(1) for part in parts])
