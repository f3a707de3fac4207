"""Contexts for coding pixels and frequencies: what is known of a symbol before it is coded.

That is its neighbours in the same image, and the symbols of earlier images of its group at the
same place. A context is a number for the one plus a number for the other, both integers, worked
out alike by encoder and decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from synth.coding.lzma_symbols import Array


class ContextModel(Protocol):
    """Chains of contexts, from few to many."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many contexts each step of the chain has."""
        ...

    @property
    def neighbours(self) -> Array:
        """[places, k]: places that were coded before; the number of places for one outside."""
        ...

    @property
    def cap(self) -> int:
        """Values of earlier images are clamped to this magnitude before they are added."""
        ...

    def by_neighbours(self, near: Array, places: Array) -> Array:
        """What neighbours add to contexts [2, steps, m, p]: about magnitudes, and about signs.

        Args:
            near: [m, p, k] values of the neighbours, 0 outside the image.
            places: [p].
        """
        ...

    def by_images(self, count: Array, total: Array, size: Array) -> Array:
        """What earlier images of the same group add, [2, steps, m, p].

        Args:
            count: [m, 1] how many there are.
            total: [m, p] sum of their values at this place.
            size: [m, p] sum of their magnitudes.
        """
        ...


# Neighbours of a frequency, up and left from it, and how much each says.
_BANDS = ((1, 0, 2), (0, 1, 2), (1, 1, 1), (2, 0, 1), (0, 2, 1))

# Of the same frequency in the blocks above and to the left, and in the channel before.
_BLOCKS = ((1, 0, 2), (0, 1, 2))

_CHANNEL = 2

# Edges of the mean magnitude of the neighbours, in sixteenths, and of the frequency.
_MAGNITUDES = np.array([0, 2, 4, 6, 10, 16, 26])

_RADII = np.array([0, 2, 6, 14, 24])

# Edges of the mean magnitude in earlier images, in twentieths; above them: no earlier image.
_SIZES = np.array([0, 2, 5, 10, 20, 40])

_NO_IMAGE = len(_SIZES) + 1

# Edges of the magnitude of their mean, in twentieths.
_MEANS = np.array([2, 8, 16, 30])


def band_order(channels: int, rows: int, columns: int, height: int, width: int) -> Array:
    """Places [p, 5] of frequencies in the order of coding: (channel, row, column, i, j).

    Low frequencies come first; of each, all channels and blocks.
    """
    return _bands(channels, rows, columns, height, width).order


@dataclass(frozen=True, eq=False)
class _Bands:
    order: Array
    neighbours: Array
    weights: Array
    radius: Array


@lru_cache(maxsize=8)
def _bands(channels: int, rows: int, columns: int, height: int, width: int) -> _Bands:
    def rank(band: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        i, j = band
        return i * width + j * height, band

    bands = sorted(np.ndindex(height, width), key=rank)
    blocks = list(np.ndindex(channels, rows, columns))
    places = [(*block, i, j) for i, j in bands for block in blocks]
    numbers = {place: number for number, place in enumerate(places)}
    neighbours, weights = [], []
    for channel, row, column, i, j in places:
        near = [((channel, row, column, i - di, j - dj), w) for di, dj, w in _BANDS]
        near += [((channel, row - dr, column - dc, i, j), w) for dr, dc, w in _BLOCKS]
        near.append(((channel - 1, row, column, i, j), _CHANNEL))
        neighbours.append([numbers.get(place, len(places)) for place, _ in near])
        weights.append([w if place in numbers else 0 for place, w in near])
    order = np.array(places)
    radius = np.searchsorted(_RADII, order[:, 3] + order[:, 4])
    return _Bands(order, np.array(neighbours), np.array(weights), radius)


@dataclass(frozen=True)
class BandContexts:
    """Of frequencies: how high one is, its neighbours' magnitudes, and earlier images.

    Attributes:
        channels: of an image.
        rows, columns: of blocks.
        height, width: of a block.
    """

    channels: int
    rows: int
    columns: int
    height: int
    width: int

    cap = 8

    @property
    def sizes(self) -> tuple[int, ...]:
        """See `ContextModel.sizes`."""
        few = (len(_RADII) + 1) * (len(_MAGNITUDES) + 1)
        return few, few * (_NO_IMAGE + 1)

    @property
    def neighbours(self) -> Array:
        """See `ContextModel.neighbours`."""
        return self._tables.neighbours

    def by_neighbours(self, near: Array, places: Array) -> Array:
        """See `ContextModel.by_neighbours`."""
        weights = self._tables.weights[places]
        mean = (np.abs(near) * weights).sum(axis=2) * 16 // np.maximum(weights.sum(axis=1), 1)
        few = self._tables.radius[places] * (len(_MAGNITUDES) + 1) + _MAGNITUDES.searchsorted(mean)
        magnitude = np.stack([few, few * (_NO_IMAGE + 1)])
        return np.stack([magnitude, np.zeros_like(magnitude)])

    def by_images(self, count: Array, total: Array, size: Array) -> Array:
        """See `ContextModel.by_images`."""
        earlier = _SIZES.searchsorted(size * 20 // (count + 1))
        earlier = np.where(count == 0, _NO_IMAGE, earlier)
        return _second(earlier, _leaning(count, total))

    @property
    def _tables(self) -> _Bands:
        return _bands(self.channels, self.rows, self.columns, self.height, self.width)


# Neighbours of a pixel (channel, row, column before it): left, above, above to the left and right,
# two to the left, two above, and the same pixel of the channel before.
_PIXELS = ((0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, -1), (0, 0, 2), (0, 2, 0), (1, 0, 0))

# Edges of the mean level of earlier images, in per cent; finely and coarsely.
_FINE = np.array([2, 12, 30, 50, 70, 88, 98])

_COARSE = np.array([6, 35, 65, 94])


@lru_cache(maxsize=8)
def _pixel_neighbours(channels: int, height: int, width: int) -> Array:
    outside = channels * height * width
    found = np.full((channels, height, width, len(_PIXELS)), outside)
    for channel, row, column in np.ndindex(channels, height, width):
        for number, (back, up, left) in enumerate(_PIXELS):
            if back <= channel and up <= row and 0 <= column - left < width:
                place = ((channel - back) * height + row - up) * width + column - left
                found[channel, row, column, number] = place
    return found.reshape(outside, -1)


@dataclass(frozen=True)
class PixelContexts:
    """Of pixels, channel by channel: the levels around one, and those of earlier images.

    Attributes:
        channels, height, width: of an image.
        levels: values of a pixel, 2 to 256.
    """

    channels: int
    height: int
    width: int
    levels: int

    cap = 256

    @property
    def sizes(self) -> tuple[int, ...]:
        """See `ContextModel.sizes`."""
        told, few, means = self._told
        coarse = len(_COARSE) + 1
        found = (means * coarse, told**2 * coarse, told**3 * few * coarse)
        return (*found, told**3 * few**3 * (len(_FINE) + 2)) if self._wide else found

    @property
    def neighbours(self) -> Array:
        """See `ContextModel.neighbours`."""
        return _pixel_neighbours(self.channels, self.height, self.width)

    def by_neighbours(self, near: Array, places: Array) -> Array:
        """See `ContextModel.by_neighbours`."""
        told, few, means = self._told
        top = self.levels - 1
        left, above, corner, beside, left2, above2, before = np.moveaxis(near, 2, 0)
        # The channel before says more than a pixel that lies further away.
        fourth, fifth = (beside, left2) if self.channels == 1 else (before, beside)
        mean = (2 * (left + above) + corner + beside) * means // (6 * top + 1)
        two = left * told // self.levels * told + above * told // self.levels
        four = (two * told + corner * told // self.levels) * few + fourth * few // self.levels
        sides = len(_COARSE) + 1
        chain = [mean * sides, two * sides, four * sides]
        if self._wide:
            six = (four * few + fifth * few // self.levels) * few + above2 * few // self.levels
            chain.append(six * (len(_FINE) + 2))
        return np.stack([np.stack(chain)] * 2)

    def by_images(self, count: Array, total: Array, size: Array) -> Array:
        """See `ContextModel.by_images`."""
        percent = total * 100 // np.maximum(count * (self.levels - 1), 1)
        coarse = np.where(count == 0, len(_COARSE) // 2, _COARSE.searchsorted(percent))
        chain = [coarse] * 3
        if self._wide:
            chain.append(np.where(count == 0, len(_FINE) + 1, _FINE.searchsorted(percent)))
        return np.stack([np.stack(chain)] * 2)

    @property
    def _told(self) -> tuple[int, int, int]:
        """Levels that are told apart in near and in farther neighbours, and of their mean."""
        near = min(self.levels, 8 if self.levels <= 16 else 4)
        return near, min(self.levels, 4), 8 if self.levels <= 8 else 32

    @property
    def _wide(self) -> bool:
        # With more levels, so many contexts would never be seen twice.
        return self.levels <= 4


@dataclass(frozen=True)
class ColumnContexts:
    """Of numbers without neighbours: the place, and the earlier images.

    Attributes:
        places: how many numbers an image has.
    """

    places: int

    cap = 1024
    sizes = (8, 8 * 9)

    @property
    def neighbours(self) -> Array:
        """See `ContextModel.neighbours`: none."""
        return np.zeros((self.places, 0), np.int64)

    def by_neighbours(self, near: Array, places: Array) -> Array:
        """See `ContextModel.by_neighbours`: the place alone."""
        place = np.minimum(places, 7) + np.zeros(near.shape[:2], np.int64)
        magnitude = np.stack([place, place * 9])
        return np.stack([magnitude, np.zeros_like(magnitude)])

    def by_images(self, count: Array, total: Array, size: Array) -> Array:
        """See `ContextModel.by_images`."""
        mean = np.minimum(size // np.maximum(count, 1), (1 << 7) - 1)
        level = np.where(
            count == 0, 8, np.array([1, 2, 4, 8, 16, 32, 64]).searchsorted(mean, "right")
        )
        return _second(level, _leaning(count, total))


def _leaning(count: Array, total: Array) -> Array:
    """To which sign the mean of earlier images leans, and how far."""
    far = _MEANS.searchsorted(np.abs(total) * 40 // (2 * count + 1), side="right")
    found: Array = len(_MEANS) + np.sign(total) * far
    return found


def _second(magnitude: Array, sign: Array) -> Array:
    """Earlier images in the second step of two, and not in the first."""
    found = np.zeros((2, 2, *sign.shape), np.int64)
    found[0, 1], found[1, 1] = magnitude, sign
    return found
