"""The images of a set as the numbers of a coding, and how many real ones fit into a budget.

The search of matching within a budget and the controls at equal bytes choose among the same ways
to keep images, and count them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from distill.data import AnyPreprocess
from distill.errors import RecipeError
from distill.recipes.build import build_coding
from distill.run.context import Context
from distill.sets.coded_set import best_coder
from synth.coding import ImageCoding, pack_images
from synth.formation import SMALLEST_CELL, decode_images, encode_images
from synth.images import Images, gather

# From one bit a pixel to about five, and frequencies about as fine; real images of 28x28 take 33
# bytes under the first.
CODINGS = (
    "rounded:depth=1",
    "rounded:depth=2",
    "palette:colours=4",
    "tones:tones=2",
    "tones:tones=3",
    "frequency:step=0.1",
    "frequency:step=0.2",
    "frequency:step=0.4",
    "frequency:step=0.8",
)

FACTORS = (1, 2)

# Images per class that the search for their number starts from.
FIRST_IPC = 8


@dataclass(frozen=True)
class CodedImages:
    """The images of a set as the numbers of a coding.

    Attributes:
        coding: of the stored images' pixels.
        preprocess: from pixels to the space of the networks.
        factor: each stored image decodes to factor^2 images.
        coder: of the bytes.
    """

    coding: ImageCoding
    preprocess: AnyPreprocess
    factor: int
    coder: str

    def start(self, images: Tensor) -> Tensor:
        """The numbers of stored images [n, c, h, w], given in the space of the networks."""
        return self.coding.start(self.preprocess.inverse(images).clamp(0, 1))

    def start_real(self, images: Images) -> Tensor:
        """The numbers of real images [n * factor^2, c, h, w], several in each stored one."""
        return self.start(encode_images(gather(images), self.factor))

    def stored(self, parameters: Tensor) -> Tensor:
        """Images [n, c, h, w] in the space of the networks, as a receiver gets them."""
        return self.preprocess(self.coding.decode(parameters))

    def seen(self, parameters: Tensor) -> Tensor:
        """Images [n * factor^2, c, h, w] that students see; differentiable."""
        return decode_images(self.stored(parameters), self.factor)

    def pack(self, parameters: Tensor) -> bytes:
        """The coded images, with their header and checksum."""
        return pack_images(self.coding, parameters, self.coder)


def code_images(context: Context, spec: str, ipc: int, factor: int) -> CodedImages:
    """How the images of a set in class order are kept.

    Args:
        context: real images, whose form the set's have.
        spec: of the coding.
        ipc: stored images per class.
        factor: each decodes to factor^2 images.

    Raises:
        RecipeError: if the coding does not allow these images.
    """
    data = context.data
    shape = (context.classes * ipc, data.channels, *data.size)
    coding = build_coding(spec, shape, context.classes)
    return CodedImages(coding, context.preprocess, factor, best_coder())


def usable_factors(size: tuple[int, int]) -> tuple[int, ...]:
    """Those of `FACTORS` that leave images of (h, w) pixels cells of more than the fewest."""
    return tuple(n for n in FACTORS if n == 1 or min(size) // n >= 2 * SMALLEST_CELL)


def usable_ways(
    context: Context, codings: Sequence[str] = CODINGS, factors: Sequence[int] | None = None
) -> list[tuple[str, int]]:
    """Each coding (spec) that the images of a run allow with each formation factor.

    Args:
        context: real images.
        codings: specs to choose from.
        factors: None for those of `usable_factors`.
    """
    if factors is None:
        factors = usable_factors(context.data.size)
    allowed = [spec for spec in codings if _allowed(context, spec)]
    return [(spec, factor) for factor, spec in product(factors, allowed)]


def _allowed(context: Context, spec: str) -> bool:
    try:
        code_images(context, spec, 1, 1)
    except RecipeError:
        return False
    return True


def most_per_class(context: Context, factor: int) -> int:
    """The most stored images per class that real ones, factor^2 in each, suffice for."""
    labels = context.data.train.labels
    return int(torch.bincount(labels, minlength=context.classes).min()) // factor**2


def largest(
    size: Callable[[int], int],
    budget: int,
    most: int,
    *,
    first: int = FIRST_IPC,
    tolerance: float = 0.02,
) -> int:
    """The largest count of at most `most` whose size fits; 0 where none does.

    Args:
        size: count -> bytes, about proportional to the count.
        budget: bytes.
        most: largest count.
        first: count to try first, at least 1.
        tolerance: share of the count by which it may be too small; below 1 / tolerance, it is
            the largest.
    """
    low, high = 0, most + 1
    guess = min(first, most)
    while high - low > max(1, int(low * tolerance)):
        taken = size(guess)
        if taken <= budget:
            low = guess
        else:
            high = guess
        # In proportion to the bytes of this guess, within the bounds.
        guess = min(max(guess * budget // taken, low + 1), high - 1)
    return low
