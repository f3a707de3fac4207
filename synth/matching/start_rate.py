"""A student learning rate to begin matching with, found from expert trajectories.

The rate at which plain steps on real images follow an expert best is about right for a set that has
been matched. A set as it begins may not bear it: few images, or soft labels, carry steps elsewhere,
and a first distance above 1 says that the students move away from the experts' targets. So the rate
is lowered from there until they hardly do. One image per class leads a little away at every rate,
and at one so small that this cannot be seen, matching would not move either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from synth.matching.gradients import parameter_distance
from synth.matching.inner_loop import InnerLoop

# Distance left to a target, by student learning rate; 1.0 is no progress.
Distance = Callable[[float], float]

# The bounds of `MatchSettings`.
SMALLEST, LARGEST = 1e-5, 1.0

# Between a rate and the next one that is tried.
FACTOR = 1.5

# Rates tried on real images, and on the set: a guess may be wrong by FACTOR to this power.
TRIES = 12

# The largest first distance that matching is begun with: it falls below 1 as images are learned.
BEARABLE = 1.1

Piece = tuple[InnerLoop, Tensor, Tensor]


def mean_distance(pieces: Sequence[Piece], rate: float) -> float:
    """The mean parameter distance that plain inner steps leave, infinite where they overflow.

    Args:
        pieces: inner loops, each with the flat parameters [p] of its start and of its target.
        rate: student learning rate > 0.
    """
    total = 0.0
    for loop, start, target in pieces:
        parameters = start
        for step in range(len(loop.batches)):
            parameters = parameters - rate * loop.gradient(step, parameters)
        total += float(parameter_distance(parameters, start, target))
        if not math.isfinite(total):
            return math.inf
    return total / len(pieces)


def following_rate(distance: Distance, guess: float) -> float:
    """The rate with the least distance, climbed to from a guess in steps of FACTOR.

    Args:
        distance: by rate.
        guess: where the search begins, > 0.

    Raises:
        ValueError: if the guess is not above 0.
    """
    if not guess > 0:
        raise ValueError(f"the guess at a student learning rate is {guess}; it must be above 0")
    best = min(max(guess, SMALLEST), LARGEST)
    least, tried = distance(best), 1
    for factor in (FACTOR, 1 / FACTOR):
        begun = best
        while tried < TRIES and SMALLEST <= best * factor <= LARGEST:
            found, tried = distance(best * factor), tried + 1
            # Below an overflow there may be others, and no slope.
            if not found < least and (factor > 1 or math.isfinite(least)):
                break
            best, least = best * factor, found
        if best != begun:
            break
    return best


def bearable_rate(distance: Distance, rate: float) -> float:
    """The first of rate, rate / FACTOR, ... that leads to at most BEARABLE; else the best tried.

    Args:
        distance: by rate, of the set as it begins.
        rate: the largest that is tried.
    """
    tried = list[tuple[float, float]]()
    for _ in range(TRIES):
        tried.append((distance(rate), rate))
        if tried[-1][0] <= BEARABLE or rate / FACTOR < SMALLEST:
            break
        rate /= FACTOR
    if tried[-1][0] <= BEARABLE:
        return tried[-1][1]
    return min(tried)[1]


def expected_rate(expert_lr: float, momentum: float, expert_steps: int, steps: int) -> float:
    """The rate at which `steps` steps go as far as an expert's along an even slope.

    Args:
        expert_lr: the expert's learning rate.
        momentum: of the expert's steps, in [0, 1).
        expert_steps: steps of the expert in a segment.
        steps: of the student.
    """
    return expert_lr / (1 - momentum) * expert_steps / steps
