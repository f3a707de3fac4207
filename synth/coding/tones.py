"""Images in few colours each: every image has a palette of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from synth.coding.adaptive import Coder
from synth.coding.alphabet import levels_alphabet
from synth.coding.base import (
    Grid,
    Shape,
    check_finite,
    check_groups,
    check_integer,
    check_shape,
    round_through,
)
from synth.coding.contexts import ColumnContexts, PixelContexts
from synth.coding.errors import CodingError

_ROUNDS = 20

# Distances that are worked out at once.
_PART = 1 << 22

_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Tones:
    """Every pixel is one of `tones` colours of its own image, on a grid of 2^depth values.

    Parameters are one vector: the pixels [n * c * h * w], then the tones [n * tones * c]. A pixel
    takes the nearest tone. Gradients go to the pixels as if they were kept, and to the tone that
    each took.

    Error: of each pixel, its distance to the nearest tone of its image.
    Source: block truncation coding (Delp and Mitchell 1979) with an image as the block, its two
    values fitted by Lloyd's algorithm as in palettes.

    Attributes:
        shape: [n, c, h, w] of the images.
        tones: 2 to 16.
        depth: bits of a channel of a tone, 1 to 8.
        groups: the images are so many runs of equal length whose images are alike, such as
            classes; a divisor of n. It only makes the bytes fewer.
    """

    shape: Shape
    tones: int = 2
    depth: int = 4
    groups: int = 1

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_integer("tones", self.tones, 2, 16)
        check_integer("depth", self.depth, 1, 8)
        check_groups(self.groups, self.shape)

    def start(self, images: Tensor) -> Tensor:
        """The pixels, and tones by Lloyd's algorithm from pixels of even steps of brightness."""
        pixels = images.permute(0, 2, 3, 1).flatten(1, 2)
        brightness = pixels.sum(dim=2)
        low, high = brightness.amin(dim=1, keepdim=True), brightness.amax(dim=1, keepdim=True)
        steps = (torch.arange(self.tones, device=images.device) + 0.5) / self.tones
        places = [(brightness - low - step * (high - low)).abs().argmin(dim=1) for step in steps]
        index = torch.stack(places, dim=1)[:, :, None].expand(-1, -1, pixels.shape[2])
        tones = pixels.gather(1, index)
        for _ in range(_ROUNDS):
            taken = _nearest(pixels, tones)[:, :, None]
            own = [taken == place for place in range(self.tones)]
            sums = torch.stack([(pixels * part).sum(dim=1) for part in own], dim=1)
            counts = torch.stack([part.sum(dim=1) for part in own], dim=1)
            tones = torch.where(counts > 0, sums / counts.clamp_min(1), tones)
        return torch.cat([images.flatten(), tones.flatten()])

    def decode(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.decode`."""
        pixels, levels = self._split(parameters)
        tones = round_through(levels) / self._top
        taken = _nearest(pixels.detach(), tones.detach())[:, :, None].expand_as(pixels)
        found = tones.gather(1, taken) + (pixels - pixels.detach())
        return self._images(found).clamp(0, 1)

    def bits(self, parameters: Tensor) -> Tensor:
        """See `ImageCoding.bits`; the slope is that between neighbours in order of brightness.

        Tones have none: they take few of the bits, and all pixels of an image depend on each.
        """
        pixels, levels = self._split(parameters)
        tones = levels.detach().round() / self._top
        taken = _nearest(pixels.detach(), tones).to(pixels)
        # Between two tones of an image, a pixel moves from one rank to the next.
        spread = (tones.amax(dim=1) - tones.amin(dim=1)).amax(dim=1).clamp_min(1 / self._top)
        moved = (pixels - pixels.detach()).mean(dim=2) * ((self.tones - 1) / spread)[:, None]
        chosen = self._grid.bits(taken + moved)
        return chosen + self._tones.bits(levels.detach().flatten(1)) + 8.0 * _LENGTH_BYTES

    def pack(self, parameters: Tensor, coder: str = "arithmetic") -> bytes:
        """The coded tones of each image in order of brightness, and the choice of each pixel."""
        check_finite(parameters)
        pixels, levels = self._split(parameters.detach())
        rounded = levels.round()
        taken = _nearest(pixels, rounded / self._top).cpu().numpy()
        first = self._tones.pack(rounded.flatten(1).long().cpu().numpy(), coder)
        return len(first).to_bytes(_LENGTH_BYTES, "little") + first + self._grid.pack(taken, coder)

    def unpack(self, body: bytes, coder: str = "arithmetic") -> Tensor:
        """See `ImageCoding.unpack`."""
        n, c, h, w = self.shape
        end = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES], "little")
        if len(body) < end:
            raise CodingError(f"{len(body)} bytes, but the tones alone need {end}")
        levels = self._tones.unpack(body[_LENGTH_BYTES:end], (n, self.tones * c), coder)
        tones = torch.from_numpy(levels).reshape(n, self.tones, c).float() / self._top
        taken = torch.from_numpy(self._grid.unpack(body[end:], (n, h * w), coder))
        return self._images(tones.gather(1, taken[:, :, None].expand(-1, -1, c)))

    @property
    def _top(self) -> int:
        return 2**self.depth - 1

    @property
    def _grid(self) -> Grid:
        (_, _, h, w), count = self.shape, self.tones
        return Grid(Coder(levels_alphabet(count), PixelContexts(1, h, w, count), self.groups))

    @property
    def _tones(self) -> Grid:
        places = ColumnContexts(self.tones * self.shape[1])
        return Grid(Coder(levels_alphabet(2**self.depth), places, self.groups))

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [n, h * w, c] and tones [n, tones, c] in steps of the grid, the darkest first."""
        n, c, _, _ = self.shape
        count = math.prod(self.shape)
        pixels = parameters[:count].reshape(self.shape).permute(0, 2, 3, 1).flatten(1, 2)
        levels = parameters[count:].reshape(n, self.tones, c).clamp(0, 1) * self._top
        order = levels.detach().round().sum(dim=2).argsort(dim=1, stable=True)
        return pixels, levels.gather(1, order[:, :, None].expand_as(levels))

    def _images(self, pixels: Tensor) -> Tensor:
        """Images [n, c, h, w] of pixels [n, h * w, c]."""
        n, c, h, w = self.shape
        return pixels.reshape(n, h, w, c).permute(0, 3, 1, 2)


def _nearest(pixels: Tensor, tones: Tensor) -> Tensor:
    """The nearest tone [n, p] of each pixel [n, p, c] of an image; the first of equals."""
    _, places, channels = pixels.shape
    size = max(1, _PART // (places * channels * tones.shape[1]))
    parts = zip(pixels.split(size), tones.split(size), strict=True)
    return torch.cat(
        [
            (own[:, :, None] - colours[:, None]).square().sum(dim=3).argmin(dim=2)
            for own, colours in parts
        ]
    )
