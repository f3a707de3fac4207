"""Trajectory matching: the outer loop over images, soft labels and the student learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from synth.augment import Augmentation, View
from synth.gradients import GradientMethod, MatchingGradient, matching_gradient
from synth.inner_loop import draw_batches


class DivergedError(RuntimeError):
    """The outer loop cannot go on.

    Attributes:
        step: index of the outer step at which it stopped.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class Segment:
    """A piece of an expert trajectory to match: start and target snapshots, [p] each."""

    start: Tensor
    target: Tensor


@dataclass(frozen=True)
class SegmentChoice:
    """Which segment an outer step matches, and what its inner loop sees.

    Attributes:
        expert: index of the expert.
        start_epoch: epoch of the start snapshot.
        batches: for each inner step, the indices of its images.
        views: for each inner step, the view of its batch; None for no augmentation.
    """

    expert: int
    start_epoch: int
    batches: list[Tensor]
    views: list[View] | None


@dataclass(frozen=True)
class SegmentSampler:
    """Draws SegmentChoices.

    Attributes:
        experts: number of experts.
        max_start_epoch: start epochs are drawn from 0 ... max_start_epoch, both included.
        inner_steps: N.
        batch_size: images per inner step; None for the whole set.
        augmentation: views of the inner steps; None for none.
    """

    experts: int
    max_start_epoch: int
    inner_steps: int
    batch_size: int | None = None
    augmentation: Augmentation | None = None

    def draw(self, count: int, size: tuple[int, int], generator: Generator) -> SegmentChoice:
        """Draw a choice for a synthetic set of `count` images of `size` (h, w)."""
        expert = int(torch.randint(self.experts, (1,), generator=generator))
        start = int(torch.randint(self.max_start_epoch + 1, (1,), generator=generator))
        batches = draw_batches(count, self.batch_size, self.inner_steps, generator)
        views = None
        if self.augmentation is not None:
            views = [self.augmentation.sample(len(b), size, generator) for b in batches]
        return SegmentChoice(expert, start, batches, views)


@dataclass(frozen=True)
class MatchSettings:
    """How the outer loop updates the synthetic set. All updates are Adam's (0.9, 0.999).

    Attributes:
        image_lr: step on the images, in units of their own scale.
        label_lr: step on the label logits; 0 keeps the labels as they are.
        log_lr_lr: step on the logarithm of the student learning rate; 0 keeps it.
        threshold: an update whose distance lies above it, or is not finite, is refused and the
            last good state is restored.
        patience: so many refusals in a row are a divergence.
        smallest_lr, largest_lr: the student learning rate stays between them.
    """

    image_lr: float = 0.03
    label_lr: float = 0.05
    log_lr_lr: float = 0.01
    threshold: float = 1.2
    patience: int = 10
    smallest_lr: float = 1e-5
    largest_lr: float = 1.0


@dataclass(frozen=True)
class Moments:
    """Adam's running mean of the gradient and of its square."""

    mean: Tensor
    square: Tensor

    @staticmethod
    def zeros(like: Tensor) -> Moments:
        """Moments before the first update."""
        return Moments(torch.zeros_like(like), torch.zeros_like(like))


@dataclass(frozen=True)
class MatchState:
    """All that the outer loop carries from one step to the next.

    Attributes:
        step: outer steps taken so far, refused ones included.
        updates: updates applied so far.
        refusals: refusals in a row just now.
        images: [n, c, h, w] of the synthetic set.
        labels: [n, k] label logits.
        log_lr: natural logarithm of the student learning rate, scalar.
        moments: Adam's moments of images, labels and log_lr.
    """

    step: int
    updates: int
    refusals: int
    images: Tensor
    labels: Tensor
    log_lr: Tensor
    moments: tuple[Moments, Moments, Moments]

    @property
    def lr(self) -> Tensor:
        """The student learning rate, scalar."""
        return self.log_lr.exp()


def initial_state(images: Tensor, labels: Tensor, lr: float) -> MatchState:
    """The state before the first outer step.

    Args:
        images: [n, c, h, w].
        labels: [n, k] label logits.
        lr: student learning rate > 0.
    """
    if not lr > 0:
        raise ValueError(f"the student learning rate is {lr}; it must be above 0")
    log_lr = torch.tensor(math.log(lr), dtype=images.dtype, device=images.device)
    values = (images.detach().clone(), labels.detach().clone(), log_lr)
    moments = tuple(Moments.zeros(value) for value in values)
    return MatchState(0, 0, 0, *values, moments)  # type: ignore[arg-type]


@dataclass(frozen=True)
class OuterStep:
    """What one outer step did.

    Attributes:
        index: its number, from 0.
        distance: mean parameter distance of its segments (1.0: no progress).
        lr: student learning rate after it.
        applied: False if the update was refused.
    """

    index: int
    distance: float
    lr: float
    applied: bool


def match_trajectories(
    state: MatchState,
    steps: int,
    *,
    network: nn.Module,
    choose: Callable[[int], Sequence[SegmentChoice]],
    read: Callable[[SegmentChoice], Segment],
    gradient: GradientMethod,
    settings: MatchSettings,
) -> Iterator[tuple[MatchState, OuterStep]]:
    """Take outer steps until `state.step` reaches `steps`; yields the state after each.

    A step depends only on the state and on `choose(index)`, so a loop that goes on from a stored
    state ends where an unbroken one does.

    Args:
        state: from `initial_state`, or an earlier one to go on from.
        steps: outer steps in all.
        network: the students' network.
        choose: the segments of outer step `index`; their gradients are averaged.
        read: the snapshots of a choice.
        gradient: Adjoint(), FrozenAdjoint() or Unrolled().
        settings: step sizes and guards.

    Raises:
        DivergedError: after `settings.patience` refused updates in a row.
    """
    good = state
    while state.step < steps:
        choices = choose(state.step)
        found = [_gradient_of(choice, state, network, read, gradient) for choice in choices]
        distance = sum(float(part.distance) for part in found) / len(found)
        if math.isfinite(distance) and distance <= settings.threshold:
            good = state
            state = _update(state, found, settings)
            applied = all(bool(v.isfinite().all()) for v in (state.images, state.labels))
        else:
            applied = False
        if not applied:
            state = _refuse(good, state, distance, settings)
        yield state, OuterStep(state.step - 1, distance, float(state.lr), applied)


def _gradient_of(
    choice: SegmentChoice,
    state: MatchState,
    network: nn.Module,
    read: Callable[[SegmentChoice], Segment],
    gradient: GradientMethod,
) -> MatchingGradient:
    segment = read(choice)
    return matching_gradient(
        network,
        segment.start,
        segment.target,
        state.images,
        state.labels,
        state.lr,
        choice.batches,
        gradient,
        choice.views,
    )


def _update(
    state: MatchState, found: Sequence[MatchingGradient], settings: MatchSettings
) -> MatchState:
    count = state.updates + 1
    share = 1 / len(found)
    lr_gradient = sum((part.lr for part in found), torch.zeros_like(state.log_lr)) * share
    gradients = (
        sum((part.images for part in found), torch.zeros_like(state.images)) * share,
        sum((part.labels for part in found), torch.zeros_like(state.labels)) * share,
        lr_gradient * state.lr,  # chain rule: the step is taken in log lr
    )
    values = (state.images, state.labels, state.log_lr)
    sizes = (settings.image_lr, settings.label_lr, settings.log_lr_lr)
    stepped = [
        _adam(value, gradient, moments, size, count)
        for value, gradient, moments, size in zip(
            values, gradients, state.moments, sizes, strict=True
        )
    ]
    log_lr = stepped[2][0].clamp(math.log(settings.smallest_lr), math.log(settings.largest_lr))
    return MatchState(
        state.step + 1,
        count,
        0,
        stepped[0][0],
        stepped[1][0],
        log_lr,
        (stepped[0][1], stepped[1][1], stepped[2][1]),
    )


def _adam(
    value: Tensor, gradient: Tensor, moments: Moments, size: float, count: int
) -> tuple[Tensor, Moments]:
    """One step of Adam (Kingma and Ba 2015, algorithm 1); `count` is 1 at the first."""
    mean = 0.9 * moments.mean + 0.1 * gradient
    square = 0.999 * moments.square + 0.001 * gradient.square()
    direction = (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-12)
    return value - size * direction, Moments(mean, square)


def _refuse(
    good: MatchState, state: MatchState, distance: float, settings: MatchSettings
) -> MatchState:
    """The last good state with its momentum gone and a smaller student learning rate."""
    refusals = state.refusals + 1
    if refusals >= settings.patience:
        raise DivergedError(
            f"the parameter distance was {distance:.3g} after {refusals} refused updates in a "
            "row; lower match.image_lr or match.lr, or train the experts longer",
            state.step,
        )
    moments = tuple(replace(m, mean=torch.zeros_like(m.mean)) for m in good.moments)
    return replace(
        good,
        step=state.step + 1,
        refusals=refusals,
        log_lr=good.log_lr - 0.1,
        moments=moments,  # type: ignore[arg-type]
    )
