"""Contexts for coding pixels and frequencies: what their decoded neighbours say of them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from synth.coding.symbols import Array, ContextOf

# Neighbours of a frequency, down and right from it, and how much each says.
_BANDS = ((1, 0, 2), (0, 1, 2), (1, 1, 1), (2, 0, 1), (0, 2, 1))

# Of the same frequency in the blocks above and to the left, and in the channel before.
_BLOCKS = ((1, 0, 2), (0, 1, 2))
_CHANNEL = 2

# Edges of the mean magnitude of the neighbours, in sixteenths, and of the frequency.
_MAGNITUDES = np.array([0, 2, 4, 6, 10, 16, 26])
_RADII = np.array([0, 2, 6, 14, 24])

# Of the contexts of `band_contexts`. The lowest frequency has no neighbours and is large.
_LEVEL_SPREADS = (1, 1, 1, 2, 2, 3, 4, 8)
BAND_SPREADS = (16,) * len(_LEVEL_SPREADS) + _LEVEL_SPREADS * len(_RADII)


@lru_cache(maxsize=8)
def band_order(channels: int, rows: int, columns: int, block: int) -> Array:
    """Places [p, 5] of frequencies in the order of coding: (channel, row, column, i, j).

    Low frequencies come first; of each, all channels and blocks.
    """
    bands = sorted(np.ndindex(block, block), key=lambda band: (sum(band), band))
    found = [
        (channel, row, column, i, j)
        for i, j in bands
        for channel in range(channels)
        for row in range(rows)
        for column in range(columns)
    ]
    return np.array(found)


@lru_cache(maxsize=8)
def _band_neighbours(
    channels: int, rows: int, columns: int, block: int
) -> list[list[tuple[int, int]]]:
    order = [tuple(place) for place in band_order(channels, rows, columns, block).tolist()]
    numbers = {place: number for number, place in enumerate(order)}
    found = []
    for channel, row, column, i, j in order:
        near = [((channel, row, column, i - di, j - dj), w) for di, dj, w in _BANDS]
        near += [((channel, row - dr, column - dc, i, j), w) for dr, dc, w in _BLOCKS]
        near.append(((channel - 1, row, column, i, j), _CHANNEL))
        found.append([(numbers[place], w) for place, w in near if place in numbers])
    return found


def band_contexts(channels: int, rows: int, columns: int, block: int, centre: int) -> ContextOf:
    """By the frequency and the mean magnitude of the neighbours; see `BAND_SPREADS`.

    Args:
        channels: of an image.
        rows: of blocks.
        columns: of blocks.
        block: side of a block.
        centre: the symbol that stands for 0.
    """
    neighbours = _band_neighbours(channels, rows, columns, block)
    order = band_order(channels, rows, columns, block)
    radius = np.searchsorted(_RADII, order[:, 3] + order[:, 4])

    def context_of(symbols: Array, place: int) -> Array:
        near = neighbours[place]
        total = np.zeros(len(symbols), np.int64)
        for number, weight in near:
            total += weight * np.abs(symbols[:, number] - centre)
        mean = total * 16 // max(1, sum(weight for _, weight in near))
        level = np.searchsorted(_MAGNITUDES, mean)
        return radius[place] * (len(_MAGNITUDES) + 1) + level

    return context_of


# Grey levels that are told apart in the pixels to the left and above.
_TOLD = 8


def pixel_context_count(levels: int) -> int:
    """How many contexts `pixel_contexts` gives."""
    return min(levels, _TOLD) ** 3


def pixel_contexts(channels: int, height: int, width: int, levels: int) -> ContextOf:
    """By the levels to the left, above, and above to the left; places are channel by channel.

    A pixel outside the image has level 0.
    """
    told = min(levels, _TOLD)

    def level(symbols: Array, channel: int, row: int, column: int) -> Array:
        if row < 0 or column < 0:
            return np.zeros(len(symbols), np.int64)
        return symbols[:, (channel * height + row) * width + column] * told // levels

    def context_of(symbols: Array, place: int) -> Array:
        channel, inside = divmod(place, height * width)
        row, column = divmod(inside, width)
        left = level(symbols, channel, row, column - 1)
        above = level(symbols, channel, row - 1, column)
        corner = level(symbols, channel, row - 1, column - 1)
        return (left * told + above) * told + corner

    return context_of
