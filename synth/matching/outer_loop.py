"""Trajectory matching: the outer loop over images, soft labels and the student learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed
from torch import Tensor, nn

from synth.errors import DivergedError
from synth.matching.gradients import GradientMethod, MatchingGradient, matching_gradient
from synth.matching.inner_loop import StepLabels
from synth.matching.ranks import Ranks, mean_of
from synth.matching.rate import Rate, rate_step
from synth.matching.segments import Segment, SegmentChoice
from synth.matching.state import Learned, MatchState
from synth.matching.view_labels import ViewLabels
from synth.updates import Average, UpdateRule, adam


@dataclass(frozen=True)
class MatchProblem:
    """What is matched.

    Attributes:
        network: the students' network, where a segment names no other.
        choose: the segments of an outer step, by its index; their gradients are averaged.
        read: loads the snapshots of a choice.
        decode: stored images -> the images that students see, differentiable; None where they
            are the same (see `synth.formation`).
        label: (segment, images that students see) -> label logits, recomputed at every outer
            step as TESLA does; None to use the labels of the set.
        view_labels: label each inner step's own views, in place of the labels of the set, which
            then stay as they are; None for no such labels.
        ranks: processes that share the segments of an outer step, each with the same state; None
            for a single process.
        rate: what the stored images may cost in bits; None for any size.
    """

    network: nn.Module
    choose: Callable[[int], Sequence[SegmentChoice]]
    read: Callable[[SegmentChoice], Segment]
    decode: Callable[[Tensor], Tensor] | None = None
    label: Callable[[Segment, Tensor], Tensor] | None = None
    view_labels: ViewLabels | None = None
    ranks: Ranks | None = None
    rate: Rate | None = None


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
        threshold: refuse an update whose distance is larger or not finite, and restore the last
            good state.
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
        distance: mean parameter distance of its segments (1.0: no progress).
        student_lr: student learning rate after it, of the first network where there are several.
        applied: False if the update was refused.
        bits: coded size of the images before it; None without a rate, or where the distance was
            refused.
        multiplier: weight of the bits in it, see `synth.matching.rate`; None where `bits` is.
    """

    index: int
    distance: float
    student_lr: float
    applied: bool
    bits: float | None = None
    multiplier: float | None = None


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
        distance, gradients, labels = mean_gradient(
            state.now, problem.choose(state.step), problem, gradient
        )
        now, bits = replace(state.now, labels=labels), None
        updated = None
        if math.isfinite(distance) and distance <= settings.threshold:
            factor = 0.5 * (1 + math.cos(math.pi * state.step / steps)) if settings.cosine else 1.0
            updated, bits = _update(now, gradients, settings, factor, problem.rate)
        if updated is not None and _is_finite(updated):
            state = MatchState(state.step + 1, 0, updated, state.now)
        else:
            updated, state = None, _refuse(state, distance, settings)
        applied, student_lr = updated is not None, float(state.student_lr)
        weight = None if bits is None else float(state.now.multiplier)
        yield state, OuterStep(state.step - 1, distance, student_lr, applied, bits, weight)


def mean_gradient(
    now: Learned,
    choices: Sequence[SegmentChoice],
    problem: MatchProblem,
    method: GradientMethod,
) -> tuple[float, tuple[Tensor, Tensor, Tensor], Tensor]:
    """The mean over all segments of an outer step.

    Returns:
        The distance; the gradients of the stored images, the label logits and the student learning
        rate; and the labels that were used last.

    Raises:
        ValueError: if there are fewer segments than ranks.
    """
    ranks, count = problem.ranks, len(choices)
    mine = choices if ranks is None else ranks.share(choices)
    results, labels = _gradients(now, mine, problem, method)
    parts = [(part.images, part.labels, part.lr, part.distance) for part in results]
    images, logits, student_lr, distance = mean_of(parts, count, ranks)
    if ranks is not None and problem.label is not None:
        labels = labels.contiguous()
        torch.distributed.broadcast(labels, ranks.world - 1)
    return float(distance), (images, logits, student_lr), labels


def _gradients(
    now: Learned,
    choices: Sequence[SegmentChoice],
    problem: MatchProblem,
    method: GradientMethod,
) -> tuple[list[MatchingGradient], Tensor]:
    """The gradient of each segment in the stored images, and the labels that were used last."""
    stored = now.images.detach().requires_grad_(problem.decode is not None)
    seen = stored if problem.decode is None else problem.decode(stored)
    results, labels = [], now.labels
    for choice in choices:
        segment = problem.read(choice)
        labels, given = given_labels(problem, choice, segment, seen.detach(), labels)
        part = matching_gradient(
            problem.network if segment.network is None else segment.network,
            segment.start,
            segment.target,
            seen.detach(),
            given,
            _rate_of(now, choice),
            choice.batches,
            method,
            choice.views,
        )
        if problem.decode is not None:
            (images,) = torch.autograd.grad(seen, stored, part.images, retain_graph=True)
            part = replace(part, images=images)
        if now.log_student_lr.ndim:
            own = torch.zeros_like(now.log_student_lr)
            own[choice.network] = part.lr
            part = replace(part, lr=own)
        results.append(part)
    return results, labels


def given_labels(
    problem: MatchProblem, choice: SegmentChoice, segment: Segment, seen: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor | StepLabels]:
    """The labels of the set for a segment, and what its inner loop gets: these, or each step's own.

    Args:
        problem: says who labels.
        choice: of the segment.
        segment: as it was read.
        seen: [m, c, h, w] images that students see.
        labels: [m, k] label logits of the set as it is.
    """
    if problem.label is not None:
        labels = problem.label(segment, seen)
    if problem.view_labels is None:
        return labels, labels
    return labels, problem.view_labels.of_steps(seen, choice.batches, choice.views)


def _rate_of(now: Learned, choice: SegmentChoice) -> Tensor:
    """The student learning rate of the network whose segment it is, scalar."""
    rates = now.log_student_lr.exp()
    return rates[choice.network] if rates.ndim else rates


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


def _is_finite(learned: Learned) -> bool:
    # A gradient whose square overflows leaves the value finite, but would stop its updates.
    squares = (moments.square for moments in learned.moments)
    values = (learned.images, learned.labels, learned.log_student_lr, *squares)
    # One check for all tensors, as each would synchronise with the device.
    return bool(torch.stack([value.isfinite().all() for value in values]).all())


def _refuse(state: MatchState, distance: float, settings: MatchSettings) -> MatchState:
    """Restore the last good values, without momentum and with a lower student learning rate."""
    refusals = state.refusals + 1
    if refusals >= settings.patience:
        raise DivergedError(
            f"the parameter distance was {distance:.3g} after {refusals} refused updates in a "
            "row; lower match.image_lr or match.student_lr, or train the experts longer",
            state.step,
        )
    images, labels, log_student_lr = (
        replace(moments, mean=torch.zeros_like(moments.mean)) for moments in state.good.moments
    )
    lowered = (state.good.log_student_lr - 0.1).clamp(min=math.log(settings.smallest_student_lr))
    restored = replace(state.good, log_student_lr=lowered, moments=(images, labels, log_student_lr))
    return MatchState(state.step + 1, refusals, restored, restored)
