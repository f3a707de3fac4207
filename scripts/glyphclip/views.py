"""Random views of drawings: what pens, cameras, scanners and small files do to a character."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

FINE = 32  # pixels in which strokes are widened and levels changed
_BENDS = 5  # points a side of the field that bends strokes
_COARSEST, _FINEST = 8, 32


@dataclass(frozen=True, eq=False)
class Views:
    """One view for each of n drawings; see `draw_views`.

    Attributes:
        maps: [n, 2, 2] turn, shear and scale around the middle.
        shift: [n, 2] in halves of the image.
        boxed: [n] whether the ink's box fills the image, or the line of text stays as it was.
        fill: [n] share of the image that a box fills.
        narrow: [n] the least width of a box as a share of its height.
        bend: [n, 2, _BENDS, _BENDS] displacements in halves of the image.
        width: [n] > 0 widens strokes by so many pixels, < 0 narrows them.
        gain: [n] contrast, with values cut at 0 and 1.
        ground: [n] brightness where there is no ink.
        negative: [n] whether ink is dark.
        noise: [n] standard deviation of noise, as a share of full brightness.
        sizes: [n] height and width in pixels to which the view is reduced, then enlarged again.
    """

    maps: Tensor
    shift: Tensor
    boxed: Tensor
    fill: Tensor
    narrow: Tensor
    bend: Tensor
    width: Tensor
    gain: Tensor
    ground: Tensor
    negative: Tensor
    noise: Tensor
    sizes: Tensor


def draw_views(count: int, generator: Generator) -> Views:
    """Draw views for `count` drawings from a CPU generator."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def chance(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    turn, shear = 0.16 * normal(), 0.2 * normal()
    scales = (0.14 * normal(2)).exp()
    cos, sin = turn.cos(), turn.sin()
    maps = torch.stack([cos, shear * cos - sin, sin, shear * sin + cos], 1).reshape(-1, 2, 2)
    coarse = torch.where(chance(0.3), _COARSEST, uniform(_COARSEST, 24).round())
    boxed = chance(0.65)
    # What is small in its image would be lost in 8 pixels, or under a broad pen.
    coarse, broad = torch.where(boxed, coarse, coarse.clamp(min=18)), torch.where(boxed, 2.2, 0.8)
    return Views(
        maps=maps / scales[:, :, None],
        shift=0.08 * normal(2),
        boxed=boxed,
        fill=uniform(0.65, 1.05),
        narrow=uniform(0.4, 1.0),
        bend=0.09 * uniform(0.0, 1.0)[:, None, None, None] * normal(2, _BENDS, _BENDS),
        width=-0.7 + (broad + 0.7) * uniform(0.0, 1.0),
        gain=uniform(0.6, 2.0),
        ground=torch.where(chance(0.3), uniform(0.0, 0.3), 0.0),
        negative=chance(0.2),
        noise=torch.where(chance(0.5), uniform(0.0, 0.12), 0.0),
        sizes=torch.where(chance(0.6), coarse, _FINEST).long(),
    )


def plain_views(count: int) -> Views:
    """Views that show `count` drawings as a line of text would have them."""
    zeros, no = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
    return Views(
        maps=torch.eye(2).expand(count, 2, 2),
        shift=torch.zeros(count, 2),
        boxed=no,
        fill=zeros + 1,
        narrow=zeros + 1,
        bend=torch.zeros(count, 2, _BENDS, _BENDS),
        width=zeros,
        gain=zeros + 1,
        ground=zeros,
        negative=no,
        noise=zeros,
        sizes=torch.full((count,), _FINEST),
    )


def apply_views(
    drawn: Tensor, boxes: Tensor, views: Views, size: int, generator: Generator
) -> Tensor:
    """Apply one view to each drawing.

    Args:
        drawn: uint8 [n, h, w].
        boxes: [n, 4] middle (x, y) and half width and height of the ink in [-1, 1].
        views: n views.
        size: height and width of the images in pixels.
        generator: for the noise of pixels.

    Returns:
        float32 [n, 1, size, size] in [0, 1].
    """
    grid = _grid(boxes, views)
    images = functional.grid_sample(drawn[:, None].float() / 255, grid, align_corners=False)
    images = _change_width(images, views.width)
    images = (images * _each(views.gain)).clamp(0, 1)
    images = _each(views.ground) + (1 - _each(views.ground)) * images
    images = torch.where(_each(views.negative), 1 - images, images)
    return _reduce(images, views, size, generator)


def _grid(boxes: Tensor, views: Views) -> Tensor:
    """Where each of the FINE x FINE pixels looks in the drawing: [n, FINE, FINE, 2]."""
    count = len(boxes)
    middle, half = boxes[:, :2], boxes[:, 2:]
    # A dash must not fill the image's height, nor a bar its width.
    wide = torch.maximum(half[:, 0], half[:, 1] * views.narrow)
    high = torch.maximum(half[:, 1], half[:, 0] * 0.5)
    reach = torch.stack([wide, high], 1) / views.fill[:, None]
    middle = torch.where(views.boxed[:, None], middle, 0.0)
    reach = torch.where(views.boxed[:, None], reach, 1.0)
    plane = torch.eye(2, 3).expand(count, 2, 3)
    points = functional.affine_grid(plane, [count, 1, FINE, FINE], align_corners=False)
    bend = functional.interpolate(views.bend, (FINE, FINE), mode="bicubic", align_corners=True)
    points = points + bend.permute(0, 2, 3, 1) + views.shift[:, None, None]
    turned = points.flatten(1, 2) @ views.maps.transpose(1, 2)
    placed = turned * reach[:, None] + middle[:, None]
    return placed.reshape(count, FINE, FINE, 2)


def _change_width(images: Tensor, width: Tensor) -> Tensor:
    """Widen strokes by `width` pixels, or narrow them by as much; parts of a pixel are blends."""
    narrow = -functional.max_pool2d(-images, 3, 1, 1)
    once = functional.max_pool2d(images, 3, 1, 1)
    twice = functional.max_pool2d(once, 3, 1, 1)
    # One pooling widens a stroke by a pixel on each side.
    step = _each(width)
    images = torch.lerp(images, narrow, (-step).clamp(0, 1))
    images = torch.lerp(images, once, step.clamp(0, 1))
    return torch.lerp(images, twice, (step - 1).clamp(0, 1))


def _reduce(images: Tensor, views: Views, size: int, generator: Generator) -> Tensor:
    """Reduce each image to its own size, add noise there, and enlarge to `size`."""
    done = torch.empty(len(images), 1, size, size)
    for small in views.sizes.unique().tolist():
        own = (views.sizes == small).nonzero().flatten()
        part = images[own]
        if small < FINE:
            part = functional.interpolate(
                part, (small, small), mode="bilinear", antialias=True, align_corners=False
            )
        noise = torch.randn(part.shape, generator=generator) * _each(views.noise[own])
        part = (part + noise).clamp(0, 1)
        done[own] = functional.interpolate(part, (size, size), mode="bilinear", align_corners=False)
    return done


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
