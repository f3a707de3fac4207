"""How many images of which shape a recipe's data are."""

from __future__ import annotations

from dataclasses import dataclass

from distill.build import build_data
from distill.tables import DataTable


@dataclass(frozen=True)
class DataShape:
    """Counts and shapes of real data.

    Attributes:
        classes: k.
        channels: c.
        size: (h, w) in pixels.
        train, validation, test: images of each split.
    """

    classes: int
    channels: int
    size: tuple[int, int]
    train: int
    validation: int
    test: int

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


# Sources whose shape is the same everywhere; it is known without a single file of theirs.
_KNOWN = {
    "digits": _Published(10, 1, 8, 1200, 597),
    "fashion-mnist": _Published(10, 1, 28, 60_000, 10_000),
}


def shape_of(table: DataTable) -> DataShape:
    """The shape of a recipe's data: from a table of known sources, else from the data themselves.

    Raises:
        RecipeError: for an unknown source.
        WorkError: if the data have to be read, and are missing or wrong.
    """
    known = _KNOWN.get(table.source.partition(":")[0])
    if known is None:
        data = build_data(table)
        counts = (len(data.train), len(data.validation), len(data.test))
        return DataShape(data.classes, data.channels, data.size, *counts)
    side = table.size or known.side
    held_out = round(known.train * table.validation)
    train = min(known.train - held_out, table.subset or known.train)
    channels = table.channels or known.channels
    return DataShape(known.classes, channels, (side, side), train, held_out, known.test)
