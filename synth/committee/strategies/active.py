"""Robust active distillation: which views are worth a teacher's label.

Source: Baykal et al. 2023. A gain says how much a student would learn from a label; an adversary
may make any m labels wrong, which then gain nothing. The weights maximise the worst-case gain.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

# A gain of 0 would get infinite weight.
_MIN_GAIN = 1e-6


def margin_gains(logits: Tensor) -> Tensor:
    """1 - (p_1 - p_2) [n] in (0, 1], p the student's two largest probabilities for each point.

    >>> margin_gains(torch.tensor([[0.7, 0.2, 0.1]]).log())
    tensor([0.5000])

    Args:
        logits: [n, k] of a student, k >= 2.
    """
    best = torch.softmax(logits, dim=1).topk(2, dim=1).values
    return (1 - (best[:, 0] - best[:, 1])).clamp_min(_MIN_GAIN)


def max_min_weights(gains: Tensor, mistakes: int) -> Tensor:
    """P [n] that maximises the least sum of p_i g_i when any `mistakes` points gain nothing.

    With g sorted downwards and k* = argmax_{k > m} (k - m) / sum_{i <= k} 1 / g_i, p_i is
    proportional to 1 / g_i for i <= k* and 0 beyond: the hardest points get less than
    intermediate ones, and easy ones nothing.

    Args:
        gains: [n], above 0, for instance 1 - margin of the student's two best classes.
        mistakes: m, how many labels the teacher may have wrong, below n.

    Raises:
        ValueError: for gains that are not above 0, or too many mistakes.
    """
    n = len(gains)
    if not bool((gains > 0).all()) or not 0 <= mistakes < n:
        raise ValueError(f"got {mistakes} mistakes of {n} gains, which must all be above 0")
    ordered, order = gains.double().sort(descending=True)
    counts = torch.arange(1, n + 1, dtype=torch.float64)
    value = (counts - mistakes) / (1 / ordered).cumsum(dim=0)
    value[:mistakes] = -torch.inf
    last = int(value.argmax()) + 1
    weights = torch.zeros(n, dtype=torch.float64)
    inverse = 1 / ordered[:last]
    weights[order[:last]] = inverse / inverse.sum()
    return weights.to(gains.dtype)


def draw_included(weights: Tensor, budget: int, generator: Generator) -> Tensor:
    """Sorted indices of `budget` points, or of all with positive weight if these are fewer.

    Each is included with probability min(1, c p_i), c such that the probabilities add up to the
    budget. Systematic sampling in a random order.

    Args:
        weights: p [n], summing to 1.
        budget: largest number of labels.
        generator: random source.
    """
    order = torch.randperm(len(weights), generator=generator)
    chances = _chances(weights.double(), budget)[order]
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    ends = chances.cumsum(dim=0)
    # The sum is an integer; rounding must not lose a point.
    ends[-1] = ends[-1].round()
    marks = (ends + offset).floor()
    taken = marks > torch.cat([torch.zeros(1, dtype=torch.float64), marks[:-1]])
    return order[taken].sort().values


def _chances(weights: Tensor, budget: int) -> Tensor:
    """min(1, c p_i) [n] that add up to the budget, or to the number of points above 0."""
    positive = weights > 0
    if int(positive.sum()) <= budget:
        return positive.double()
    chances = budget * weights
    while bool((chances > 1).any()):
        certain = chances >= 1
        left = budget - int(certain.sum())
        chances = torch.where(certain, 1.0, left * weights / weights[~certain].sum())
    return chances
