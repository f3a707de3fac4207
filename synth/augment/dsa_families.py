"""Augmentation families: how parameters are drawn, and how they act on images.

Each family has `width` parameters per image, kept as a float tensor [n, width]. Drawing and
applying are separate, so that the same view can be replayed exactly, stored beside its soft label,
or differentiated through. Strengths are those of DSA (Zhao and Bilen 2021) unless stated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

Size = tuple[int, int]


@dataclass(frozen=True)
class Family:
    """One kind of augmentation.

    Attributes:
        width: parameters per image.
        draw: (n, (h, w), generator) -> parameters [n, width].
        act: (images [n, c, h, w], parameters [n, width]) -> images [n, c, h, w].
    """

    width: int
    draw: Callable[[int, Size, Generator], Tensor]
    act: Callable[[Tensor, Tensor], Tensor]


def _uniform(shape: tuple[int, int], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator)


def _warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Sample `images` at affine positions: matrices [n, 2, 3] in normalised coordinates."""
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=True)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=True)


def _matrices(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _draw_flip(n: int, size: Size, generator: Generator) -> Tensor:
    return (_uniform((n, 1), generator) < 0.5).float()


def _act_flip(images: Tensor, parameters: Tensor) -> Tensor:
    flipped = parameters.view(-1, 1, 1, 1) > 0.5
    return torch.where(flipped, images.flip(3), images)


def _draw_scale(n: int, size: Size, generator: Generator, ratio: float = 1.2) -> Tensor:
    return 1 / ratio + _uniform((n, 2), generator) * (ratio - 1 / ratio)


def _act_scale(images: Tensor, parameters: Tensor) -> Tensor:
    sx, sy = parameters.unbind(dim=1)
    zero = torch.zeros_like(sx)
    return _warp(images, _matrices([[sx, zero, zero], [zero, sy, zero]]))


def _draw_rotate(n: int, size: Size, generator: Generator, degrees: float = 15.0) -> Tensor:
    return (_uniform((n, 1), generator) * 2 - 1) * math.radians(degrees)


def _act_rotate(images: Tensor, parameters: Tensor) -> Tensor:
    angle = parameters[:, 0]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _warp(images, _matrices([[cos, -sin, zero], [sin, cos, zero]]))


def _draw_crop(n: int, size: Size, generator: Generator, ratio: float = 0.125) -> Tensor:
    reach = [int(side * ratio + 0.5) for side in size]
    unit = _uniform((n, 2), generator)
    return torch.stack(
        [(unit[:, i] * (2 * reach[i] + 1)).floor() - reach[i] for i in (0, 1)], dim=1
    )


def _act_crop(images: Tensor, parameters: Tensor) -> Tensor:
    """Shift each image by (dy, dx) whole pixels, zero-padded."""
    n, _, h, w = images.shape
    shift = parameters.round().long()
    rows = torch.arange(h, device=images.device).view(1, h, 1) + shift[:, :1, None]
    columns = torch.arange(w, device=images.device).view(1, 1, w) + shift[:, 1:, None]
    inside = ((rows >= 0) & (rows < h)) & ((columns >= 0) & (columns < w))
    flat = (rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)).view(n, 1, h * w)
    moved = images.flatten(2).gather(2, flat.expand(-1, images.shape[1], -1))
    return moved.view_as(images) * inside.view(n, 1, h, w).to(images.dtype)


def _draw_cutout(n: int, size: Size, generator: Generator) -> Tensor:
    unit = _uniform((n, 2), generator)
    return torch.stack([(unit[:, i] * size[i]).floor() for i in (0, 1)], dim=1)


def _act_cutout(images: Tensor, parameters: Tensor, ratio: float = 0.5) -> Tensor:
    """Zero a box of `ratio` of each side around (y, x); zero is the mean after normalisation."""
    _, _, h, w = images.shape
    centre = parameters.round()
    inside = []
    for axis, side in ((0, h), (1, w)):
        length = int(side * ratio + 0.5)
        first = centre[:, axis : axis + 1] - length // 2
        positions = torch.arange(side, device=images.device).view(1, side)
        inside.append((positions >= first) & (positions < first + length))
    box = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    return images * (~box).unsqueeze(1).to(images.dtype)


def _draw_colour(n: int, size: Size, generator: Generator) -> Tensor:
    """Brightness shift in [-0.5, 0.5], saturation factor in [0, 2], contrast in [0.5, 1.5]."""
    unit = _uniform((n, 3), generator)
    return torch.stack([unit[:, 0] - 0.5, unit[:, 1] * 2, unit[:, 2] + 0.5], dim=1)


def _act_colour(images: Tensor, parameters: Tensor) -> Tensor:
    brightness, saturation, contrast = (p.view(-1, 1, 1, 1) for p in parameters.unbind(dim=1))
    images = images + brightness
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * saturation + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * contrast + mean


def _draw_resize(n: int, size: Size, generator: Generator, smallest: float = 0.5) -> Tensor:
    """A box of area in [smallest, 1] of the image, aspect ratio in [3/4, 4/3]: (h, w, y, x).

    Sides are fractions of the image, (y, x) the centre in [-1, 1]. torchvision's
    RandomResizedCrop, except that a side is clipped to the image instead of redrawn.
    """
    unit = _uniform((n, 4), generator)
    area = smallest + unit[:, 0] * (1 - smallest)
    aspect = torch.exp((unit[:, 1] * 2 - 1) * math.log(4 / 3))
    height = (area / aspect).sqrt().clamp(max=1)
    width = (area * aspect).sqrt().clamp(max=1)
    y = (unit[:, 2] * 2 - 1) * (1 - height)
    x = (unit[:, 3] * 2 - 1) * (1 - width)
    return torch.stack([height, width, y, x], dim=1)


def _act_resize(images: Tensor, parameters: Tensor) -> Tensor:
    height, width, y, x = parameters.unbind(dim=1)
    zero = torch.zeros_like(y)
    return _warp(images, _matrices([[width, zero, x], [zero, height, y]]))


def _draw_zoom(n: int, size: Size, generator: Generator) -> Tensor:
    """A box as of `resize`, of at least 8 % of the image: the default of RandomResizedCrop."""
    return _draw_resize(n, size, generator, smallest=0.08)


FAMILIES: dict[str, Family] = {
    "colour": Family(3, _draw_colour, _act_colour),
    "crop": Family(2, _draw_crop, _act_crop),
    "cutout": Family(2, _draw_cutout, _act_cutout),
    "flip": Family(1, _draw_flip, _act_flip),
    "scale": Family(2, _draw_scale, _act_scale),
    "rotate": Family(1, _draw_rotate, _act_rotate),
    "resize": Family(4, _draw_resize, _act_resize),
    "zoom": Family(4, _draw_zoom, _act_resize),
}

# The six families of DSA, in its order of naming.
DSA_FAMILIES = ("colour", "crop", "cutout", "flip", "scale", "rotate")
