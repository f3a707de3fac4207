"""Crop boxes: drawn in one call, cut out and enlarged in another."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

# (top, left, height, width) in whole pixels
Box = tuple[int, int, int, int]

_ATTEMPTS = 10


def draw_box(
    size: tuple[int, int], generator: Generator, smallest: float, stretch: float = 4 / 3
) -> Box:
    """A box of an image of `size` (h, w), drawn as torchvision's RandomResizedCrop draws one.

    The area is uniform in [smallest, 1] of the image's, the ratio of width to height log-uniform
    in [1 / stretch, stretch]; after ten boxes that do not fit, the whole image.

    Args:
        size: (h, w) in pixels.
        generator: random source.
        smallest: share of the area in (0, 1]; 1 gives the whole image.
        stretch: 1 gives squares.

    Raises:
        ValueError: for a share outside (0, 1], or a stretch below 1.
    """
    if not 0 < smallest <= 1 or stretch < 1:
        raise ValueError(
            f"got a smallest area of {smallest} and a stretch of {stretch}; need a share above 0 "
            "and up to 1, and a stretch of at least 1"
        )
    h, w = size
    if smallest == 1:
        return 0, 0, h, w
    for _ in range(_ATTEMPTS):
        area, ratio, top, left = torch.rand(4, generator=generator).tolist()
        area = h * w * (smallest + area * (1 - smallest))
        ratio = math.exp((2 * ratio - 1) * math.log(stretch))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < height <= h and 0 < width <= w:
            return int(top * (h - height + 1)), int(left * (w - width + 1)), height, width
    return 0, 0, h, w


def crop_resized(images: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Cut `box` out of images [n, c, h, w] and resize it to `size`; differentiable.

    Bilinear, with antialiasing where it shrinks, as torchvision's RandomResizedCrop.
    """
    top, left, height, width = box
    cut = images[:, :, top : top + height, left : left + width]
    if (height, width) == size:
        return cut
    return interpolate(cut, size, mode="bilinear", align_corners=False, antialias=True)
