"""Images that stand in a data set twice: exact copies, and images that look the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.health.survey import SurveyedPart

# Images in one product of descriptors.
_BLOCK = 2048


class Place(NamedTuple):
    """An image: its part and its number there."""

    part: str
    number: int


@dataclass(frozen=True)
class Pair:
    """Two images that are the same, or look the same; the first comes first in the data.

    Attributes:
        first: an image.
        second: the image that repeats it.
        similarity: their correlation from afar; 1 for exact copies.
        exact: whether all pixels are equal.
        one_class: whether they have one label.
    """

    first: Place
    second: Place
    similarity: float
    exact: bool
    one_class: bool

    @property
    def leaks(self) -> bool:
        """Whether they stand in different parts."""
        return self.first.part != self.second.part


@dataclass(frozen=True)
class Copies:
    """All pairs that were found, the most similar first.

    An image is the second of at most three pairs: with the most similar one of another part, of
    another class in its part, and of its own class and part.
    """

    pairs: tuple[Pair, ...]

    @property
    def leaks(self) -> tuple[Pair, ...]:
        """Pairs across parts: what is held out is also trained on."""
        return tuple(pair for pair in self.pairs if pair.leaks)

    @property
    def conflicts(self) -> tuple[Pair, ...]:
        """Pairs across classes: one of the two labels is likely wrong."""
        return tuple(pair for pair in self.pairs if not pair.one_class)

    @property
    def within(self) -> tuple[Pair, ...]:
        """Pairs of one class in one part."""
        return tuple(pair for pair in self.pairs if pair.one_class and not pair.leaks)


def find_copies(parts: Sequence[SurveyedPart], similarity: float = 0.995) -> Copies:
    """Find images that repeat others, in all parts and classes.

    Near copies are found by the correlation of descriptors, see `describe`: the same image
    compressed, resized, or made brighter, but neither mirrored nor cut. Blank images are no near
    copies. Time grows with the square of the images, except for those that differ most.

    Args:
        parts: what was seen.
        similarity: least correlation of near copies, in (0, 1]; 1 finds exact copies alone.
    """
    places = [Place(part.name, index) for part in parts for index in range(len(part))]
    prints = [print_ for part in parts for print_ in part.prints]
    labels = torch.cat([part.labels for part in parts]).numpy()
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])

    # Image -> the first one with its pixels; near copies are looked for among the first ones.
    first: dict[bytes, int] = {}
    original = np.array([first.setdefault(print_, index) for index, print_ in enumerate(prints)])
    exact = [_Found(int(a), b, 1.0) for b, a in enumerate(original) if a != b]
    unique = np.flatnonzero(original == np.arange(len(original)))
    near: list[_Found] = []
    if similarity < 1:
        descriptors = torch.cat([part.descriptors for part in parts])[torch.from_numpy(unique)]
        best = _Best(labels[unique], numbers[unique])
        for found in alike(descriptors, similarity):
            best.add(*found)
        near = [_Found(int(unique[a]), int(unique[b]), s) for a, b, s in best.found()]
    pairs = [
        Pair(places[a], places[b], s, listed is exact, bool(labels[a] == labels[b]))
        for listed in (exact, near)
        for a, b, s in sorted(listed, key=lambda pair: -pair.similarity)
    ]
    return Copies(tuple(pairs))


class _Found(NamedTuple):
    first: int
    second: int
    similarity: float


def alike(
    descriptors: Tensor, similarity: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """All pairs of rows whose product is at least `similarity`, in pieces.

    Rows are sorted along the direction in which they differ most: two of length 1 with that
    product cannot be farther apart there than sqrt(2 - 2 similarity), so most blocks are passed.

    Args:
        descriptors: float32 [n, d], rows of length 1; rows of 0 are passed over.
        similarity: in (0, 1).

    Yields:
        first [p], second [p], first < second, and their products [p].
    """
    kept = torch.nonzero(descriptors.square().sum(dim=1) > 0.5).flatten()
    rows = descriptors[kept]
    if len(rows) < 2:
        return
    centred = rows - rows.mean(dim=0)
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    line, order = (rows @ direction).sort()
    rows, kept = rows[order], kept[order]
    reach = (2 - 2 * similarity) ** 0.5 + 1e-4
    for low in range(0, len(rows), _BLOCK):
        block = rows[low : low + _BLOCK]
        end = int(torch.searchsorted(line, line[low + len(block) - 1] + reach))
        for other in range(low, end, _BLOCK):
            products = block @ rows[other : other + _BLOCK].T
            if other == low:
                products = products.triu(diagonal=1)
            hits = torch.nonzero(products >= similarity)
            if not len(hits):
                continue
            values = products[hits[:, 0], hits[:, 1]].clamp(max=1)
            a, b = kept[low + hits[:, 0]], kept[other + hits[:, 1]]
            yield torch.minimum(a, b).numpy(), torch.maximum(a, b).numpy(), values.numpy()


class _Best:
    """The most similar earlier image of each image, by the three kinds of pairs."""

    def __init__(self, labels: NDArray[np.int64], parts: NDArray[np.int64]) -> None:
        self._labels, self._parts = labels, parts
        self._rows = np.empty((0, 3), dtype=np.float64)

    def add(
        self, first: NDArray[np.int64], second: NDArray[np.int64], products: NDArray[np.float32]
    ) -> None:
        rows = np.stack([first, second, products.astype(np.float64)], axis=1)
        rows = np.concatenate([self._rows, rows])
        a, b = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
        leaks, conflicts = self._parts[a] != self._parts[b], self._labels[a] != self._labels[b]
        kind = np.where(leaks, 2, np.where(conflicts, 1, 0))
        # The last of each image and kind is its most similar one, the first of equals.
        order = np.lexsort((-a, rows[:, 2], b, kind))
        keys = np.stack([kind[order], b[order]], axis=1)
        last = np.append((keys[1:] != keys[:-1]).any(axis=1), True)
        self._rows = rows[order[last]]

    def found(self) -> list[tuple[int, int, float]]:
        return [(int(a), int(b), float(product)) for a, b, product in self._rows]
