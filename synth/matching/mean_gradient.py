"""What is matched, and the mean of its gradients over the segments of an outer step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from synth.augment import View
from synth.matching.features import FeatureGradient, FeatureTerm, feature_gradient
from synth.matching.gradients import GradientMethod, matching_gradient
from synth.matching.inner_loop import StepLabels, make_inner_loop
from synth.matching.ranks import Ranks, mean_of
from synth.matching.rate import Rate
from synth.matching.segments import Segment, SegmentChoice
from synth.matching.state import Learned
from synth.matching.view_labels import ViewLabels


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
        features: whose features are compared beside the parameter distance, or in its place; None
            for the distance alone. Choices must then say of which images.
    """

    network: nn.Module
    choose: Callable[[int], Sequence[SegmentChoice]]
    read: Callable[[SegmentChoice], Segment]
    decode: Callable[[Tensor], Tensor] | None = None
    label: Callable[[Segment, Tensor], Tensor] | None = None
    view_labels: ViewLabels | None = None
    ranks: Ranks | None = None
    rate: Rate | None = None
    features: FeatureTerm | None = None


@dataclass(frozen=True)
class MeanGradient:
    """The mean over all segments of an outer step.

    Attributes:
        distance: parameter distance; None where features alone are matched.
        gradients: of the stored images, the label logits and the student learning rate.
        labels: [m, k] that were used last.
        features: distance of the features; None without them.
        entropy: cross-entropy at the target snapshots; None where it has no weight.
    """

    distance: float | None
    gradients: tuple[Tensor, Tensor, Tensor]
    labels: Tensor
    features: float | None = None
    entropy: float | None = None


def mean_gradient(
    now: Learned,
    choices: Sequence[SegmentChoice],
    problem: MatchProblem,
    method: GradientMethod,
) -> MeanGradient:
    """The mean over all segments of an outer step.

    Raises:
        ValueError: if there are fewer segments than ranks.
    """
    ranks, count = problem.ranks, len(choices)
    mine = choices if ranks is None else ranks.share(choices)
    results, labels = _gradients(now, mine, problem, method)
    images, logits, student_lr, *measured = mean_of(results, count, ranks)
    distance, features, entropy = map(float, measured)
    if ranks is not None and problem.label is not None:
        labels = labels.contiguous()
        torch.distributed.broadcast(labels, ranks.world - 1)
    term = problem.features
    return MeanGradient(
        None if term is not None and term.alone else distance,
        (images, logits, student_lr),
        labels,
        None if term is None else features,
        None if term is None or not term.later_weight else entropy,
    )


def _gradients(
    now: Learned,
    choices: Sequence[SegmentChoice],
    problem: MatchProblem,
    method: GradientMethod,
) -> tuple[list[list[Tensor]], Tensor]:
    """The gradient of each segment in the stored images, and the labels that were used last.

    Of each segment: gradients of stored images, labels and learning rates; its parameter distance,
    that of its features and their cross-entropy.
    """
    stored = now.images.detach().requires_grad_(problem.decode is not None)
    seen = stored if problem.decode is None else problem.decode(stored)
    results, labels = list[list[Tensor]](), now.labels
    for choice in choices:
        segment = problem.read(choice)
        if problem.label is not None:
            labels = problem.label(segment, seen.detach())
        piece = _Piece(problem, choice, segment, seen.detach(), labels)
        part = _segment_gradient(piece, now, method)
        if problem.decode is not None:
            (part[0],) = torch.autograd.grad(seen, stored, part[0], retain_graph=True)
        if now.log_student_lr.ndim:
            own = torch.zeros_like(now.log_student_lr)
            own[choice.network] = part[2]
            part[2] = own
        results.append(part)
    return results, labels


@dataclass(frozen=True, eq=False)
class _Piece:
    """A segment that was read, and the set: images [m, c, h, w] and labels as students see them."""

    problem: MatchProblem
    choice: SegmentChoice
    segment: Segment
    seen: Tensor
    labels: Tensor

    @property
    def network(self) -> nn.Module:
        """Whose segment it is."""
        return self.problem.network if self.segment.network is None else self.segment.network


def _segment_gradient(piece: _Piece, now: Learned, method: GradientMethod) -> list[Tensor]:
    """What `_gradients` gives of a segment, in the images that students see."""
    problem, choice, segment = piece.problem, piece.choice, piece.segment
    term, zero = problem.features, torch.zeros_like(now.multiplier)
    images, logits = torch.zeros_like(piece.seen), torch.zeros_like(piece.labels)
    student_lr = distance = features = entropy = zero
    if term is None or not term.alone:
        found = matching_gradient(
            piece.network,
            segment.start,
            segment.target,
            piece.seen,
            step_labels(problem, choice.batches, choice.views, piece.seen, piece.labels),
            _rate_of(now, choice),
            choice.batches,
            method,
            choice.views,
        )
        images, logits, student_lr = found.images, found.labels, found.lr
        distance = found.distance
    if term is not None:
        own = _feature_gradient(piece, term)
        images = images + (1.0 if term.alone else term.weight) * own.images
        features, entropy = own.distance, own.entropy
    return [images, logits, student_lr, distance, features, entropy]


def _feature_gradient(piece: _Piece, term: FeatureTerm) -> FeatureGradient:
    """The term of a segment.

    Raises:
        ValueError: if the choice does not say of which images.
    """
    choice = piece.choice.features
    if choice is None:
        raise ValueError("the choice names no images whose features are compared; draw some")
    views = choice.own_views
    labels = step_labels(piece.problem, choice.batches, views, piece.seen, piece.labels)
    loop = make_inner_loop(piece.network, piece.seen, labels, choice.batches, views)
    start, target = piece.segment.start, piece.segment.target
    return feature_gradient(loop, start, target, term.real(choice), term.later_weight)


def step_labels(
    problem: MatchProblem,
    batches: Sequence[Tensor],
    views: Sequence[View] | None,
    seen: Tensor,
    labels: Tensor,
) -> Tensor | StepLabels:
    """The labels of an inner loop: those of the set, or what teachers say of each step's views.

    Args:
        problem: says who labels.
        batches: for each inner step, the indices of its images.
        views: for each inner step, the view of its batch.
        seen: [m, c, h, w] images that students see.
        labels: [m, k] label logits of the set.
    """
    if problem.view_labels is None:
        return labels
    return problem.view_labels.of_steps(seen, batches, views)


def _rate_of(now: Learned, choice: SegmentChoice) -> Tensor:
    """The student learning rate of the network whose segment it is, scalar."""
    rates = now.log_student_lr.exp()
    return rates[choice.network] if rates.ndim else rates
