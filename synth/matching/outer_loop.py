"""Trajectory matching: the outer loop over images, soft labels and the student learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from synth.errors import DivergedError
from synth.matching.gradients import GradientMethod
from synth.matching.mean_gradient import MatchProblem, MeanGradient, mean_gradient
from synth.matching.rate import Rate, rate_step
from synth.matching.state import Learned, MatchState
from synth.updates import Average, UpdateRule, adam


@dataclass(frozen=True)
class MatchSettings:
    """How the outer loop updates the synthetic set.

    Attributes:
        image_lr: learning rate of the images.
        label_lr: learning rate of the label logits; 0 keeps the labels fixed.
        student_lr_lr: Adam's learning rate of log(student_lr); 0 keeps it fixed.
        image_rule, label_rule: `adam`, whose steps do not depend on the gradient's scale, or
            `Momentum`.
        cosine: whether image_lr and label_lr fall to zero along a cosine over the outer loop.
        image_average: decay of the moving average of the images (FTD); 0 for none.
        threshold: refuse an update whose parameter distance is larger or not finite, and restore
            the last good state.
        patience: raise DivergedError after this many refusals in a row.
        smallest_student_lr, largest_student_lr: bounds of the student learning rate.
    """

    image_lr: float = 0.03
    label_lr: float = 0.05
    student_lr_lr: float = 0.01
    image_rule: UpdateRule = adam
    label_rule: UpdateRule = adam
    cosine: bool = False
    image_average: float = 0.0
    threshold: float = 1.2
    patience: int = 10
    smallest_student_lr: float = 1e-5
    largest_student_lr: float = 1.0


@dataclass(frozen=True)
class OuterStep:
    """What one outer step did.

    Attributes:
        index: its number, from 0.
        distance: mean parameter distance of its segments (1.0: no progress); None where features
            alone are matched.
        student_lr: student learning rate after it, of the first network where there are several.
        applied: False if the update was refused.
        bits: coded size of the images before it; None without a rate, or where the distance was
            refused.
        multiplier: weight of the bits in it, see `synth.matching.rate`; None where `bits` is.
        features: mean distance of the features, see `synth.matching.features`; None without them.
        entropy: mean cross-entropy at the target snapshots; None where it has no weight.
    """

    index: int
    distance: float | None
    student_lr: float
    applied: bool
    bits: float | None = None
    multiplier: float | None = None
    features: float | None = None
    entropy: float | None = None


def match_trajectories(
    state: MatchState,
    steps: int,
    problem: MatchProblem,
    *,
    gradient: GradientMethod,
    settings: MatchSettings,
) -> Iterator[tuple[MatchState, OuterStep]]:
    """Take outer steps until `state.step` reaches `steps`; yields the state after each.

    A step depends only on the state and its index, so a loop resumed from a stored state gives
    the same result.

    Args:
        state: from `initial_state`, or a stored one to resume from.
        steps: outer steps in all.
        problem: what is matched.
        gradient: Adjoint(), FrozenAdjoint() or Unrolled().
        settings: step sizes and guards.

    Raises:
        DivergedError: after `settings.patience` refused updates in a row.
    """
    while state.step < steps:
        found = mean_gradient(state.now, problem.choose(state.step), problem, gradient)
        now, bits = replace(state.now, labels=found.labels), None
        updated = None
        if _is_near(found.distance, settings.threshold):
            factor = 0.5 * (1 + math.cos(math.pi * state.step / steps)) if settings.cosine else 1.0
            updated, bits = _update(now, found.gradients, settings, factor, problem.rate)
        if updated is not None and _is_finite(updated):
            state = MatchState(state.step + 1, 0, updated, state.now)
        else:
            updated, state = None, _refuse(state, found, settings)
        yield (
            state,
            OuterStep(
                state.step - 1,
                found.distance,
                float(state.student_lr),
                updated is not None,
                bits,
                None if bits is None else float(state.now.multiplier),
                found.features,
                found.entropy,
            ),
        )


def _update(
    now: Learned,
    gradients: tuple[Tensor, Tensor, Tensor],
    settings: MatchSettings,
    factor: float,
    rate: Rate | None,
) -> tuple[Learned, float | None]:
    """What is learned after an update, and the bits that the images took before it."""
    count = now.updates + 1
    images, labels, student_lr = gradients
    image_lr, label_lr = settings.image_lr * factor, settings.label_lr * factor
    steps = (
        settings.image_rule(now.images, images, now.moments[0], image_lr, count),
        settings.label_rule(now.labels, labels, now.moments[1], label_lr, count),
        # The step is taken in log(student_lr), which keeps the rate positive.
        adam(
            now.log_student_lr,
            student_lr * now.log_student_lr.exp(),
            now.moments[2],
            settings.student_lr_lr,
            count,
        ),
    )
    log_student_lr = steps[2][0].clamp(
        math.log(settings.smallest_student_lr), math.log(settings.largest_student_lr)
    )
    moments = (steps[0][1], steps[1][1], steps[2][1])
    stored, multiplier, bits = steps[0][0], now.multiplier, None
    if rate is not None:
        stored, multiplier, bits = rate_step(now.images, stored, multiplier, rate)
    average = Average(now.average, settings.image_average).updated(stored).value
    learned = Learned(stored, steps[1][0], log_student_lr, moments, average, count, multiplier)
    return learned, bits


def _is_near(distance: float | None, threshold: float) -> bool:
    """Whether a parameter distance, where there is one, is such that an update is taken."""
    return distance is None or (math.isfinite(distance) and distance <= threshold)


def _is_finite(learned: Learned) -> bool:
    # A gradient whose square overflows leaves the value finite, but would stop its updates.
    squares = (moments.square for moments in learned.moments)
    values = (learned.images, learned.labels, learned.log_student_lr, *squares)
    # One check for all tensors, as each would synchronise with the device.
    return bool(torch.stack([value.isfinite().all() for value in values]).all())


def _refuse(state: MatchState, found: MeanGradient, settings: MatchSettings) -> MatchState:
    """Restore the last good values, without momentum and with a lower student learning rate.

    Features alone have no inner loop, and leave the rate as it is.
    """
    refusals = state.refusals + 1
    if refusals >= settings.patience:
        measured, advice = _measured(found)
        raise DivergedError(
            f"the {measured} after {refusals} refused updates in a row; {advice}", state.step
        )
    images, labels, log_student_lr = (
        replace(moments, mean=torch.zeros_like(moments.mean)) for moments in state.good.moments
    )
    lowered = state.good.log_student_lr
    if found.distance is not None:
        lowered = (lowered - 0.1).clamp(min=math.log(settings.smallest_student_lr))
    restored = replace(state.good, log_student_lr=lowered, moments=(images, labels, log_student_lr))
    return MatchState(state.step + 1, refusals, restored, restored)


def _measured(found: MeanGradient) -> tuple[str, str]:
    """What was matched, in words, and what may bring it down."""
    if found.distance is None:
        return f"distance of the features was {found.features:.3g}", "lower match.image_lr"
    return (
        f"parameter distance was {found.distance:.3g}",
        "lower match.image_lr or match.student_lr, or train the experts longer",
    )
