"""Counts and shapes of a recipe's real and synthetic images, and sizes of its networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from distill.recipes.build import build_data, build_network, relabel_views
from distill.recipes.schema import Recipe
from distill.recipes.tables.data import DataTable
from distill.recipes.tables.relabel import RelabelTable
from distill.store.hdf5 import smallest_unsigned
from synth.augment import FAMILIES
from synth.augment.mix import MIX_WIDTHS
from synth.training.batches import split_batches


@dataclass(frozen=True)
class DataShape:
    """Counts and shapes of real data.

    Attributes:
        classes: k.
        channels: c.
        size: (h, w) in pixels.
        train, validation, test: images of each split.
        packed: whether the images stay on the disk.
        read_bytes: of all pixels as they are read, float32, before subsets and resizing.
    """

    classes: int
    channels: int
    size: tuple[int, int]
    train: int
    validation: int
    test: int
    read_bytes: int = 0
    packed: bool = False

    @property
    def description(self) -> str:
        """Shape and classes in words, as in "3x32x32 in 10 classes"."""
        return f"{self.channels}x{self.size[0]}x{self.size[1]} in {self.classes} classes"

    @property
    def image(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        return (self.channels, *self.size)

    @property
    def pixels(self) -> int:
        """Values of one image, c * h * w."""
        return self.channels * self.size[0] * self.size[1]


@dataclass(frozen=True)
class _Published:
    classes: int
    channels: int
    side: int
    train: int
    test: int


# Sources of a fixed shape, which is known without reading a file.
_KNOWN = {
    "digits": _Published(10, 1, 8, 1200, 597),
    "fashion-mnist": _Published(10, 1, 28, 60_000, 10_000),
    "torchvision:MNIST": _Published(10, 1, 28, 60_000, 10_000),
    "torchvision:FashionMNIST": _Published(10, 1, 28, 60_000, 10_000),
    "torchvision:CIFAR10": _Published(10, 3, 32, 50_000, 10_000),
    "torchvision:CIFAR100": _Published(100, 3, 32, 50_000, 10_000),
}

# Folders that the papers' recipes name; an existing folder takes precedence. The photographs of
# ImageNet-1K have many sizes: 224 is the usual input of networks.
_KNOWN_FOLDERS = {
    "tiny-imagenet": _Published(200, 3, 64, 100_000, 10_000),
    "imagenet-1k": _Published(1000, 3, 224, 1_281_167, 50_000),
}


def data_shape(table: DataTable) -> DataShape:
    """The shape of a recipe's data: from a table of known sources, else from the data themselves.

    Raises:
        RecipeError: for an unknown source.
        WorkError: if the data have to be read, and are missing or wrong.
    """
    known = _known(table.source)
    if known is None:
        data = build_data(table)
        counts = (len(data.train), len(data.validation), len(data.test))
        read = 4 * sum(counts) * data.channels * data.size[0] * data.size[1]
        packed = table.source.startswith("packed:")
        return DataShape(data.classes, data.channels, data.size, *counts, read, packed)
    side = table.size or known.side
    held_out = round(known.train * table.validation)
    train = min(known.train - held_out, table.subset or known.train)
    channels = table.channels or known.channels
    read = 4 * (known.train + known.test) * known.channels * known.side**2
    return DataShape(known.classes, channels, (side, side), train, held_out, known.test, read)


def _known(source: str) -> _Published | None:
    kind, _, argument = source.partition(":")
    if kind == "folder":
        path = Path(argument)
        return None if path.exists() else _KNOWN_FOLDERS.get(path.name)
    if kind == "torchvision":
        return _KNOWN.get(":".join(source.split(":")[:2]))
    return _KNOWN.get(kind)


@dataclass(frozen=True)
class SyntheticShape:
    """Images of the synthetic set: `stored`, and `seen` by students (factor^2 for each)."""

    stored: int
    seen: int


def synthetic_shape(recipe: Recipe, shape: DataShape) -> SyntheticShape:
    """How many images the synthetic set has."""
    stored = recipe.maker.ipc * shape.classes
    # Mosaics are images of their own; only matching decodes one stored image to several.
    factor = recipe.match.factor if recipe.match is not None else 1
    return SyntheticShape(stored, stored * factor**2)


def meta_network(spec: str, shape: DataShape) -> nn.Module:
    """A network of a spec on the meta device."""
    with torch.device("meta"):
        return build_network(spec, shape.channels, shape.size, shape.classes, 0)


def parameter_count(network: nn.Module) -> int:
    """p, the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def vote_bytes(table: RelabelTable, count: int, classes: int) -> int:
    """Bytes of stored votes: id, view and float16 logits of every image in every epoch."""
    logits = table.epochs * count * 2 * classes
    if table.views == "seed":
        return logits
    parameters = sum(FAMILIES[family].width for family in relabel_views(table).families)
    views = table.epochs * count * (smallest_unsigned(count).itemsize + 2 * parameters)
    if table.mix == "none":
        return logits + views
    places = split_batches(count, table.batch_size)
    partner = smallest_unsigned(max(place.stop - place.start for place in places)).itemsize
    mixes = count * partner + len(places) * 2 * MIX_WIDTHS[table.mix]
    return logits + views + table.epochs * mixes
