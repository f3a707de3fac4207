"""Robust active distillation: which views are worth a teacher's label.

Source: Baykal et al. 2023. Gains say how much a student would learn from a label; the adversary
may make any m of them wrong, so that they gain nothing. The weights maximise the worst gain.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def max_min_weights(gains: Tensor, mistakes: int) -> Tensor:
    """P [n] that maximises the least sum of p_i g_i when any `mistakes` points gain nothing.

    With g sorted downwards and k* = argmax_{k > m} (k - m) / sum_{i <= k} 1 / g_i, p_i is
    proportional to 1 / g_i for i <= k* and 0 beyond: the very hardest points get less than the
    middling ones, and easy ones nothing.

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
    """Indices of about `budget` points, each included with probability min(1, budget * p_i).

    Systematic sampling in a random order: as many points as the probabilities add up to, rounded
    up or down.

    Args:
        weights: p [n], summing to 1.
        budget: labels that can be asked for.
        generator: makes the choice.
    """
    order = torch.randperm(len(weights), generator=generator)
    chances = (budget * weights.double()).clamp(max=1)[order]
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    ends = chances.cumsum(dim=0)
    taken = (ends + offset).floor() > (ends - chances + offset).floor()
    return order[taken].sort().values
