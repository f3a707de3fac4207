"""Codebooks: k-means, dimensions dealt to them alike, and words chosen by what labels lose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Points that words are learned on, at most; all are given to the nearest word afterwards.
_LEARNED_ON = 1 << 16

# Steps of Lloyd's algorithm, at most: later ones change little.
_STEPS = 25

# Distances, and products of labels and shapes, in memory at a time.
_DISTANCES = 1 << 24

_VALUES = 1 << 23

# The share of the weight that is the same for all classes, and passes over the parts: a third of
# the divergence lies in the first pass, later ones than the third change next to nothing.
_EVEN = 0.05

_SWEEPS = 3


def learn_words(points: Tensor, count: int, seed: int) -> Tensor:
    """Centres [count, d] of points [n, d], by k-means.

    Lloyd's algorithm from the start of k-means++ (Arthur and Vassilvitskii 2007). With fewer
    different points than words, the words that are left over are zero.

    Args:
        points: float32; where there are very many, some at equal distances in order are learned on.
        count: K, words.
        seed: of the start.
    """
    points = points[:: -(-len(points) // _LEARNED_ON)].contiguous()
    centres = _spread_start(points, count, seed)
    nearest = torch.full((len(points),), -1)
    for _ in range(_STEPS):
        before, nearest = nearest, nearest_words(points, centres)
        if torch.equal(before, nearest):
            break
        sums = torch.zeros_like(centres, dtype=torch.float64)
        sums.index_add_(0, nearest, points.double())
        members = torch.bincount(nearest, minlength=len(centres))[:, None]
        means = (sums / members.clamp_min(1)).float()
        centres = torch.where(members > 0, means, centres)
    padded = torch.zeros(count, points.shape[1])
    padded[: len(centres)] = centres
    return padded


def nearest_words(points: Tensor, words: Tensor) -> Tensor:
    """The place [n] int64 of the nearest of `words` [K, d] for each of `points` [n, d]."""
    half = words.square().sum(dim=1) / 2
    parts = points.split(max(1, _DISTANCES // len(words)))
    return torch.cat([(half - part @ words.T).argmin(dim=1) for part in parts])


def least_divergent(
    points: Tensor, shapes: Tensor, weights: Tensor, codebooks: Sequence[Tensor], numbers: Tensor
) -> Tensor:
    """Words [n, m] that lose less of labels than `numbers` [n, m], from which it starts.

    What a label p loses is sum_j p_j (d_j - sum_i p_i d_i)^2, d the error of its logits: twice the
    KL divergence, to second order and at temperature 1. A share of the weight is the same
    for all classes, as the divergence's higher orders count them too. Part by part, the word of
    least loss beside the present words of the other parts is taken, three times over.

    Args:
        points: [n, r] coordinates of labels.
        shapes: [r, k], logits of a unit of each coordinate.
        weights: [n, k] probabilities p.
        codebooks: of each part, [K, w]; the parts are slices of the coordinates.
        numbers: [n, m] int64, of words.
    """
    chunk = max(1, _VALUES // shapes.numel())
    parts = zip(points.split(chunk), weights.split(chunk), numbers.split(chunk), strict=True)
    return torch.cat([_descended(own, shapes, p, codebooks, word) for own, p, word in parts])


def _descended(
    points: Tensor, shapes: Tensor, weights: Tensor, codebooks: Sequence[Tensor], numbers: Tensor
) -> Tensor:
    even = (1 - _EVEN) * weights + _EVEN / weights.shape[1]
    means = weights @ shapes.T
    form = (shapes * even[:, None]) @ shapes.T
    form = form - (1 - _EVEN) * means[:, :, None] * means[:, None]
    own = _slices(points, codebooks)
    places = [place[0] for place in _slices(torch.arange(points.shape[1])[None], codebooks)]
    chosen = list(numbers.T)
    parts = zip(own, codebooks, chosen, strict=True)
    errors = torch.cat([part - words[number] for part, words, number in parts], dim=1)
    for number in [*range(len(codebooks))] * _SWEEPS:
        place, gaps = places[number], own[number][:, None] - codebooks[number]
        errors[:, place] = 0
        beside = (form[:, place] @ errors[:, :, None])[:, :, 0]
        inside = form[:, place][:, :, place]
        loss = torch.einsum("nkw,nwv,nkv->nk", gaps, inside, gaps)
        chosen[number] = (loss + 2 * torch.einsum("nkw,nw->nk", gaps, beside)).argmin(dim=1)
        errors[:, place] = own[number] - codebooks[number][chosen[number]]
    return torch.stack(chosen, dim=1)


def _slices(points: Tensor, codebooks: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return points.split([words.shape[1] for words in codebooks], dim=1)


def balanced_order(variances: Tensor, parts: int) -> list[int]:
    """An order of dimensions whose `parts` consecutive slices vary alike.

    Each dimension, the one of largest variance first, goes to the slice whose variances have the
    smallest product so far and that has a place left: the eigenvalue allocation of Ge et al. 2013
    (OPQ). Slices are those of `part_widths`.

    >>> balanced_order(torch.tensor([8.0, 4.0, 2.0, 1.0]), 2)
    [0, 3, 1, 2]

    Args:
        variances: [r], at least 0.
        parts: m, at most r.
    """
    widths = part_widths(len(variances), parts)
    logs = variances.double().clamp_min(torch.finfo(torch.float32).tiny).log()
    slices: list[list[int]] = [[] for _ in widths]
    for dimension in logs.argsort(descending=True, stable=True).tolist():
        free = [number for number in range(parts) if len(slices[number]) < widths[number]]
        # An empty slice comes before all others, whatever the sign of their logarithms.
        least = min(free, key=lambda number: _load(slices[number], logs))
        slices[least].append(dimension)
    return [dimension for own in slices for dimension in own]


def part_widths(dimensions: int, parts: int) -> list[int]:
    """The widths of `parts` slices of so many dimensions, the wider ones first.

    >>> part_widths(7, 3)
    [3, 2, 2]
    """
    return [dimensions // parts + (number < dimensions % parts) for number in range(parts)]


def _load(own: list[int], logs: Tensor) -> tuple[bool, float]:
    return bool(own), float(logs[own].sum())


def _spread_start(points: Tensor, count: int, seed: int) -> Tensor:
    """Up to `count` different points, each drawn by its squared distance from those before it."""
    # NumPy guarantees the raw PCG64 stream across versions.
    bits = np.random.PCG64(seed).random_raw(count)
    draws = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    chosen = [int(draws[0] * len(points))]
    away = (points - points[chosen[0]]).square().sum(dim=1).double()
    for draw in draws[1:]:
        sums = away.cumsum(dim=0)
        if not float(sums[-1]) > 0:
            break
        chosen.append(int(torch.searchsorted(sums, float(draw) * sums[-1], right=True)))
        fresh = (points - points[chosen[-1]]).square().sum(dim=1).double()
        away = torch.minimum(away, fresh)
    return points[chosen]
