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
class Learned:
    """What the outer loop learns, with its optimiser's memory.

    Attributes:
        images: [n, c, h, w] of the synthetic set.
        labels: [n, k] label logits.
        log_lr: natural logarithm of the student learning rate, scalar.
        moments: Adam's moments of images, labels and log_lr.
        updates: updates applied so far.
    """

    images: Tensor
    labels: Tensor
    log_lr: Tensor
    moments: tuple[Moments, Moments, Moments]
    updates: int


@dataclass(frozen=True)
class MatchState:
    """All that the outer loop carries from one step to the next.

    Attributes:
        step: outer steps taken so far, refused ones included.
        refusals: refusals in a row just now.
        now: what has been learned so far.
        good: the last values whose distance was measured and accepted.
    """

    step: int
    refusals: int
    now: Learned
    good: Learned

    @property
    def images(self) -> Tensor:
        """[n, c, h, w] of the synthetic set."""
        return self.now.images

    @property
    def labels(self) -> Tensor:
        """[n, k] label logits."""
        return self.now.labels

    @property
    def lr(self) -> Tensor:
        """The student learning rate, scalar."""
        return self.now.log_lr.exp()


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
    images, labels = images.detach().clone(), labels.detach().clone()
    moments = (Moments.zeros(images), Moments.zeros(labels), Moments.zeros(log_lr))
    start = Learned(images, labels, log_lr, moments, 0)
    return MatchState(0, 0, start, start)


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
    while state.step < steps:
        choices = choose(state.step)
        found = [_gradient_of(choice, state, network, read, gradient) for choice in choices]
        distance = sum(float(part.distance) for part in found) / len(found)
        updated = None
        if math.isfinite(distance) and distance <= settings.threshold:
            updated = _update(state.now, found, settings)
        if updated is not None and _is_finite(updated):
            state = MatchState(state.step + 1, 0, updated, state.now)
            yield state, OuterStep(state.step - 1, distance, float(state.lr), applied=True)
        else:
            state = _refuse(state, distance, settings)
            yield state, OuterStep(state.step - 1, distance, float(state.lr), applied=False)


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


def _update(now: Learned, found: Sequence[MatchingGradient], settings: MatchSettings) -> Learned:
    count = now.updates + 1
    images, labels, lr = (
        torch.stack([getattr(part, name) for part in found]).mean(dim=0)
        for name in ("images", "labels", "lr")
    )
    steps = (
        _adam(now.images, images, now.moments[0], settings.image_lr, count),
        _adam(now.labels, labels, now.moments[1], settings.label_lr, count),
        # Chain rule: the step is taken in log lr, which keeps the rate positive.
        _adam(now.log_lr, lr * now.log_lr.exp(), now.moments[2], settings.log_lr_lr, count),
    )
    log_lr = steps[2][0].clamp(math.log(settings.smallest_lr), math.log(settings.largest_lr))
    moments = (steps[0][1], steps[1][1], steps[2][1])
    return Learned(steps[0][0], steps[1][0], log_lr, moments, count)


def _is_finite(learned: Learned) -> bool:
    # A gradient whose square overflows leaves the value finite, but would freeze it for ever.
    squares = (moments.square for moments in learned.moments)
    values = (learned.images, learned.labels, learned.log_lr, *squares)
    return all(bool(value.isfinite().all()) for value in values)


def _adam(
    value: Tensor, gradient: Tensor, moments: Moments, size: float, count: int
) -> tuple[Tensor, Moments]:
    """One step of Adam (Kingma and Ba 2015, algorithm 1); `count` is 1 at the first."""
    mean = 0.9 * moments.mean + 0.1 * gradient
    square = 0.999 * moments.square + 0.001 * gradient.square()
    direction = (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-12)
    return value - size * direction, Moments(mean, square)


def _refuse(state: MatchState, distance: float, settings: MatchSettings) -> MatchState:
    """The last good values with their momentum gone and a smaller student learning rate."""
    refusals = state.refusals + 1
    if refusals >= settings.patience:
        raise DivergedError(
            f"the parameter distance was {distance:.3g} after {refusals} refused updates in a "
            "row; lower match.image_lr or match.lr, or train the experts longer",
            state.step,
        )
    images, labels, log_lr = (
        replace(moments, mean=torch.zeros_like(moments.mean)) for moments in state.good.moments
    )
    lowered = (state.good.log_lr - 0.1).clamp(min=math.log(settings.smallest_lr))
    restored = replace(state.good, log_lr=lowered, moments=(images, labels, log_lr))
    return MatchState(state.step + 1, refusals, restored, restored)
