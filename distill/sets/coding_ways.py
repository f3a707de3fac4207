"""Ways to keep images, each with a scale from fine to coarse, and the finest that fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from distill.errors import RecipeError
from distill.recipes.build import build_coding
from distill.sets.coded_set import best_coder
from synth.coding import ImageCoding, Pixels, Shape, pack_images

_DEPTHS = tuple(range(8, 0, -1))

_COLOURS = (256, 64, 32, 24, 16, 12, 8, 6, 5, 4, 3, 2)

_TONES = (16, 12, 8, 6, 5, 4, 3, 2)

# 32 steps for each doubling, from half a grey value to more than the range of pixels.
_STEPS = tuple(float(f"{0.002 * 2 ** (place / 32):.3g}") for place in range(352))

# What a coefficient may be in steps: by default, and at most.
_USUAL, _MOST = 64, 1024

# 0 is best for the squared error at high rates; steps that grow keep more of what is seen.
_SLOPES = (0.0, 0.5)

_BLOCKS = (8, 7, 6, 5, 4)


def coding_ways(shape: Shape, groups: int = 1) -> Iterator[Sequence[ImageCoding]]:
    """Ways to keep images of a shape, each from the finest to the coarsest."""
    families = [
        ["pixels"],
        [f"rounded:depth={depth}" for depth in _DEPTHS],
        [f"palette:colours={colours}" for colours in _COLOURS],
        [f"tones:tones={tones}" for tones in _TONES],
    ]
    _, _, h, w = shape
    block = next((side for side in _BLOCKS if h % side == 0 == w % side and side < h), None)
    for side in (0, block):
        if side is not None:
            longest = side or math.sqrt(h * w)
            families += [_frequencies(side, longest, slope) for slope in _SLOPES]
    for family in families:
        try:
            yield [build_coding(spec, shape, groups) for spec in family]
        except RecipeError:
            continue  # frequencies of images that are neither gray nor coloured


def _frequencies(block: int, side: float, slope: float) -> list[str]:
    """Specs of all steps at which no coefficient of a block passes its largest magnitude.

    Args:
        block: side of the blocks, 0 for the whole image.
        side: root of the pixels of a block; half of it bounds a coefficient of pixels in [0, 1].
        slope: how the steps grow.
    """
    found = []
    for step in _STEPS:
        largest = math.ceil(side / 2 / step)
        if largest <= _MOST:
            bound = f":largest={largest}" if largest > _USUAL else ""
            found.append(f"frequency:step={step}:slope={slope}:block={block}{bound}")
    return found


def finest_that_fits(
    way: Sequence[ImageCoding], pixels: Tensor, room: int
) -> tuple[bytes | None, ImageCoding | None, int]:
    """The finest coding that fits into `room` bytes, with its payload, and the fewest bytes seen.

    Codings are bisected: a coarser one is taken to need no more bytes.
    """
    coder = best_coder()
    low, high = 0, len(way)
    found: tuple[bytes | None, ImageCoding | None] = (None, None)
    payload = pack_pixels(way[-1], pixels, coder)
    least = len(payload)
    if least > room:
        return None, None, least
    while low < high:
        middle = (low + high) // 2
        payload = pack_pixels(way[middle], pixels, coder)
        if len(payload) <= room:
            found, high = (payload, way[middle]), middle
        else:
            low = middle + 1
    return *found, least


def pack_pixels(coding: ImageCoding, pixels: Tensor, coder: str) -> bytes:
    """Bytes of pixels [n, c, h, w] under a coding."""
    return pack_images(coding, start_of(coding, pixels), coder)


def start_of(coding: ImageCoding, pixels: Tensor) -> Tensor:
    """Parameters of the coding; only pixels as they are can leave [0, 1]."""
    return coding.start(pixels if isinstance(coding, Pixels) else pixels.clamp(0, 1))
