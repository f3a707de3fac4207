"""The optimisation of one batch of images against the members that were drawn for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from synth.errors import DivergedError
from synth.losses import MAX_LOSS
from synth.precision import Precision, forward
from synth.recovery.aims import Aim
from synth.recovery.blending import Blending
from synth.recovery.views import SharedView
from synth.updates import Adam, Moments, UpdateRule

Background = Literal["free", "kept"]


@dataclass(frozen=True)
class Teacher:
    """A member of the committee that was drawn for a batch.

    Attributes:
        network: images -> logits; put into evaluation mode.
        weight: of its loss; those of a batch's teachers sum to 1.
        aim: what its features should be near; None for nothing, which is not asked if `bn_weight`
            is 0.
    """

    network: nn.Module
    weight: float
    aim: Aim | None = None


@dataclass(frozen=True)
class ValidImages:
    """Keeps images within the range that pixels can have.

    Attributes:
        low: normalised value of a black pixel, [c, 1, 1].
        high: of a white one.
        background: "free", or "kept": a pixel that is black in all channels stays black. Adam
            moves a pixel that hardly matters as far as any other, so empty backgrounds fill with a
            faint texture, and small networks with BatchNorm learn it: on Fashion-MNIST it alone
            costs a ResNet-18 of width 8 ten points. Not in the papers, whose images have none.
    """

    low: Tensor
    high: Tensor
    background: Background = "free"

    def __call__(self, images: Tensor, before: Tensor) -> Tensor:
        """The nearest valid images [b, c, h, w] after a step, given those before it."""
        images = images.clamp(self.low, self.high)
        if self.background == "free":
            return images
        # Half a grey level: resized black is black only up to rounding.
        black = (before < self.low + (self.high - self.low) / 512).all(1, keepdim=True)
        return torch.where(black, self.low, images)


@dataclass(frozen=True)
class RecoverProblem:
    """What is recovered.

    Attributes:
        teachers: members of this batch.
        labels: [b] classes of the images.
        view: step -> the view that all teachers see at this step.
        constrain: (images after a step, before it) -> the nearest valid images, see
            `ValidImages`.
        blending: with real images between blocks of steps; None for none.
    """

    teachers: Sequence[Teacher]
    labels: Tensor
    view: Callable[[int], SharedView]
    constrain: Callable[[Tensor, Tensor], Tensor]
    blending: Blending | None = None


@dataclass(frozen=True)
class RecoverSettings:
    """How images are optimised; the defaults are those of CV-DD.

    Attributes:
        lr: Adam's step in normalised units; falls to zero along a cosine.
        bn_weight: weight of the teachers' aims, by default BatchNorm statistics; 0 leaves them out.
        rule: `Adam(0.5, 0.9, 1e-8)`.
        precision: of the teachers' passes, see `synth.precision`; statistics are float32.
    """

    lr: float = 0.25
    bn_weight: float = 0.01
    rule: UpdateRule = field(default=Adam(0.5, 0.9, 1e-8))
    precision: Precision = "float32"


@dataclass(frozen=True)
class RecoverState:
    """State of the loop: steps taken, images [b, c, h, w] and Adam's moments."""

    step: int
    images: Tensor
    moments: Moments


@dataclass(frozen=True)
class RecoverStep:
    """The losses of one step, weighted over the teachers.

    Attributes:
        index: its number, from 0.
        cross_entropy: with the classes of the images.
        statistics: distance of the BatchNorm statistics, or of another aim, before its weight.
    """

    index: int
    cross_entropy: float
    statistics: float


def first_state(images: Tensor) -> RecoverState:
    """The state before the first step, from images [b, c, h, w]."""
    return RecoverState(0, images.detach().clone(), Moments.zeros(images))


def recover_images(
    state: RecoverState, steps: int, problem: RecoverProblem, settings: RecoverSettings
) -> Iterator[tuple[RecoverState, RecoverStep]]:
    """Take steps until `state.step` reaches `steps`; yields the state after each.

    The loss is sum_m w_m (CE_m + weight * statistics_m): the weights apply to both parts.
    Source: CV-DD (Cui et al. 2025). Gradients are summed one teacher at a time, so memory does
    not grow with the committee. A step depends only on the state and its index, so a loop resumed
    from a stored state gives the same result.

    Args:
        state: from `first_state`, or a stored one to resume from.
        steps: steps in all.
        problem: what is recovered.
        settings: step size and weights.

    Raises:
        DivergedError: when a loss is not finite or above `MAX_LOSS`, or an image not finite.
    """
    for teacher in problem.teachers:
        teacher.network.eval()
    while state.step < steps:
        gradient, parts = teachers_gradient(state, problem, settings)
        factor = 0.5 * (1 + math.cos(math.pi * state.step / steps))
        images, moments = _step(state, gradient, settings, settings.lr * factor, problem, steps)
        # The only synchronisation with the device in a step.
        entropy, statistics, finite = torch.cat([parts, images.isfinite().all()[None]]).tolist()
        step = RecoverStep(state.step, entropy, statistics)
        loss = step.cross_entropy + settings.bn_weight * step.statistics
        if not loss < MAX_LOSS or not finite:
            raise DivergedError(
                f"the loss was {loss:.3g}, or an image is no longer finite; lower recover.lr or "
                "recover.bn_weight",
                state.step,
            )
        state = RecoverState(state.step + 1, images, moments)
        yield state, step


def _step(
    state: RecoverState,
    gradient: Tensor,
    settings: RecoverSettings,
    size: float,
    problem: RecoverProblem,
    steps: int,
) -> tuple[Tensor, Moments]:
    """Images and moments after a step of this size, and after a blend if one is due."""
    blending, taken = problem.blending, state.step + 1
    count = taken if blending is None else 1 + blending.since(state.step, steps)
    images, moments = settings.rule(state.images, gradient, state.moments, size, count)
    images = problem.constrain(images, state.images)
    if blending is not None and blending.due(taken, steps):
        with torch.no_grad():
            images = blending(images)
        moments = Moments.zeros(images)
    return images, moments


def teachers_gradient(
    state: RecoverState, problem: RecoverProblem, settings: RecoverSettings
) -> tuple[Tensor, Tensor]:
    """The gradient in the images, summed over the teachers, and the two losses of `RecoverStep`.

    Both stay on the device.
    """
    view = problem.view(state.step)
    gradient = torch.zeros_like(state.images)
    parts = torch.zeros(2, device=gradient.device)
    for teacher in problem.teachers:
        # A new leaf and view for each teacher, so that one graph is in memory at a time.
        images = state.images.detach().requires_grad_()
        losses = _losses(teacher, images, view, problem.labels, settings)
        loss = teacher.weight * (losses[0] + settings.bn_weight * losses[1])
        gradient += torch.autograd.grad(loss, images)[0]
        parts += teacher.weight * losses.detach()
        del losses, loss
    return gradient, parts


def _losses(
    teacher: Teacher,
    images: Tensor,
    view: SharedView,
    labels: Tensor,
    settings: RecoverSettings,
) -> Tensor:
    """Cross-entropy and distance from the teacher's aim, [2]."""
    if settings.bn_weight == 0 or teacher.aim is None:
        logits = forward(teacher.network, view.apply(images), settings.precision)
        entropy = cross_entropy(logits, labels)
        return torch.stack([entropy, torch.zeros_like(entropy)])
    logits, distance = teacher.aim(teacher.network, images, view, settings.precision)
    return torch.stack([cross_entropy(logits, labels), distance])
