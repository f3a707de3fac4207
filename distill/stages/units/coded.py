"""Real images as the codings keep them: how many fit into a budget, and what coding them costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill.recipes.build import build_coding
from distill.recipes.schema import Recipe
from distill.run.dry_run import Cost
from distill.sets.coded_set import best_coder
from distill.sets.network_labels import expected_bytes
from distill.stages.units.networks import Units
from distill.stages.units.shapes import DataShape, synthetic_shape, vote_bytes
from distill.stages.units.unit import Unit
from synth.coding import ImageCoding, pack_images

# Bits a pixel that twenty images a class take, header included: means of digits at 16x16 and of
# Fashion-MNIST, which differ by up to a quarter. Without the data, no other is known.
_BITS = {
    "rounded:depth=1": 0.24,
    "rounded:depth=2": 0.50,
    "palette:colours=4": 0.51,
    "tones:tones=2": 0.235,
    "tones:tones=3": 0.41,
    "frequency:step=0.1": 0.60,
    "frequency:step=0.2": 0.36,
    "frequency:step=0.4": 0.185,
    "frequency:step=0.8": 0.09,
}

# Of a coding that is not in the table.
_USUAL_BITS = 0.5

# How often images are coded until as many of them as fit are found.
PACKED = 5


def fitting_ipc(spec: str, budget: int, shape: DataShape, tiles: int = 1) -> int:
    """About as many stored images per class as fit into a budget, at least one.

    Args:
        spec: of their coding.
        budget: bytes of all images.
        shape: of the data.
        tiles: real images that a stored one takes.
    """
    size = shape.classes * shape.pixels * _BITS.get(spec, _USUAL_BITS) / 8
    most = shape.train // (shape.classes * tiles)
    return max(1, min(most, int(budget / size)))


def label_network_bytes(recipe: Recipe, shape: DataShape) -> int:
    """Bytes of a committee that labels the views within a budget; 0 for other labels."""
    if recipe.budget_bytes is None:
        return 0
    return expected_bytes(recipe, shape.channels, shape.size, shape.classes)


def set_bytes(recipe: Recipe, shape: DataShape, source: str) -> int:
    """About the bytes of the set and of one label source.

    What projectors and codecs take is not known before, and not counted.
    """
    match, synthetic = recipe.match, synthetic_shape(recipe, shape)
    if recipe.budget_bytes is not None:
        # Hard labels take less of the budget than a network that labels the views.
        own = source in ("hard", "learned")
        return recipe.budget_bytes - (label_network_bytes(recipe, shape) if own else 0)
    pixels = synthetic.stored * shape.pixels
    images = 4 * pixels
    if match is not None and match.coded:
        images = int(pixels * _BITS.get(match.images, _USUAL_BITS) / 8)
    labels = {"learned": 4 * synthetic.seen * shape.classes}
    if recipe.relabel is not None:
        labels["votes"] = vote_bytes(recipe.relabel, synthetic.seen, shape.classes)
    return images + labels.get(source, shape.classes)


def packing(units: Units, spec: str, count: int) -> Unit:
    """Coding so many images, to count their bytes."""

    def work(size: int) -> tuple[Callable[[], object], int]:
        images = _pixels(units, size)
        coding = coding_of(units, spec, size)
        return lambda: pack_images(coding, coding.start(images), best_coder()), 1

    # Integers and their coder: no convolutions or matrix products.
    return Unit(f"packing of {spec}", count, work, lambda size: _cost(units, size))


def coding_of(units: Units, spec: str, count: int) -> ImageCoding:
    """The coding of so many images, in runs of a class where these are of equal length."""
    classes = units.shape.classes
    groups = classes if count % classes == 0 else 1
    return build_coding(spec, (count, *units.shape.image), groups)


def _pixels(units: Units, count: int) -> Tensor:
    """Smooth images in [0, 1], whose values repeat about as often as those of real ones."""
    rows, columns = units.shape.size
    waves = torch.linspace(0, 3, rows)[:, None].sin() * torch.linspace(0, 2, columns).cos()
    return (0.5 + 0.4 * waves + 0.1 * units.images(count).cpu()).clamp(0, 1)


def _cost(units: Units, count: int) -> Cost:
    return Cost(0, 3 * 4 * count * units.shape.pixels)
