"""Features of the set and of real images along expert trajectories, without an inner loop.

At the start of a segment the mean features of each class should be those of real images, and at its
target the images should be told for what they are labelled. With f_c and r_c the mean features of
class c in the set and in a batch of real images under the same view, and r the mean of all r_c,

    F = sum_c |f_c - r_c|^2 / sum_c |r_c - r|^2        C = cross-entropy at the target snapshot

are what is descended: F + later_weight * C. F is 0 where the means are equal, and 1 where they are
as far off as the mean of all classes is. Features are the inputs of the last linear layer. Source:
after TGDD (Ran et al. 2026) and its code, which does not divide by the distance of the classes and
takes a step after each class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from synth.augment import Augmentation, View
from synth.committee.features import watch_head
from synth.matching.inner_loop import InnerLoop
from synth.precision import full_float32


@dataclass(frozen=True)
class FeatureChoice:
    """Whose features are compared, class by class.

    Attributes:
        real: for each class, places of real images, on the CPU.
        batches: for each class, the indices [b] of its images in the set.
        views: for each class, the view of one image, which all of its images get; None for none.
    """

    real: Sequence[Tensor]
    batches: Sequence[Tensor]
    views: Sequence[View] | None

    def view(self, label: int, count: int) -> View | None:
        """The view of `count` images of a class: the same for each."""
        if self.views is None:
            return None
        return self.views[label].select(torch.zeros(count, dtype=torch.int64))

    @property
    def own_views(self) -> list[View] | None:
        """The view of each class's images in the set."""
        views = [self.view(label, len(batch)) for label, batch in enumerate(self.batches)]
        known = [view for view in views if view is not None]
        return known or None


@dataclass(frozen=True)
class FeatureSampler:
    """Draws FeatureChoices.

    Attributes:
        real: for each class, the places of all its real images, on the CPU.
        batches: for each class, the indices of its images in the set.
        most: real images of a class that are drawn, without replacement; all where it has fewer.
        augmentation: views; None for none.
    """

    real: Sequence[Tensor]
    batches: Sequence[Tensor]
    most: int
    augmentation: Augmentation | None = None

    def draw(self, size: tuple[int, int], generator: Generator) -> FeatureChoice:
        """Draw a choice for images of `size` (h, w)."""
        real = [
            places[torch.randperm(len(places), generator=generator)[: self.most]]
            for places in self.real
        ]
        views = None
        if self.augmentation is not None:
            views = [self.augmentation.sample(1, size, generator) for _ in real]
        return FeatureChoice(real, self.batches, views)


@dataclass(frozen=True)
class FeatureTerm:
    """Features beside the parameter distance, or in its place.

    Attributes:
        read: places of real images -> the images [n, c, h, w], as students see them.
        weight: of the term beside the distance, above 0.
        later_weight: of the cross-entropy within the term; 0 leaves it out.
        alone: whether there is no inner loop and no parameter distance.
    """

    read: Callable[[Tensor], Tensor]
    weight: float = 1.0
    later_weight: float = 1.0
    alone: bool = False

    def real(self, choice: FeatureChoice) -> Iterable[Tensor]:
        """The real images of each class, under its view."""
        for label, places in enumerate(choice.real):
            images, view = self.read(places), choice.view(label, len(places))
            yield images if view is None else view.apply(images)


@dataclass(frozen=True)
class FeatureGradient:
    """The term of one segment, and its gradient.

    Attributes:
        distance: F, scalar.
        entropy: C, scalar; 0 where it has no weight.
        images: gradient of F + later_weight * C in the images [n, c, h, w].
    """

    distance: Tensor
    entropy: Tensor
    images: Tensor


def feature_gradient(
    loop: InnerLoop, start: Tensor, target: Tensor, real: Iterable[Tensor], later_weight: float
) -> FeatureGradient:
    """F and C of the images of a set, and their gradient; the graph of one class lives at a time.

    Labels are constants: only the images are moved by it.

    Args:
        loop: network, images, labels and views; each class is a step, whose batch are its images.
        start: [p] flat parameters of the snapshot whose features are compared.
        target: [p] of the snapshot whose cross-entropy is taken.
        real: images [b, c, h, w] of each class under its view, in the order of the steps.
        later_weight: see `FeatureTerm`.

    Raises:
        ValueError: if the network has no linear layer to take features from.
    """
    count = sum(len(batch) for batch in loop.batches)
    images = torch.zeros_like(loop.images)
    distances, entropies = [], []
    with full_float32():
        with torch.no_grad():
            wanted = torch.stack([_features(loop, start, batch).mean(dim=0) for batch in real])
        scale = (wanted - wanted.mean(dim=0)).square().sum().clamp_min(1e-12)
        for step, batch in enumerate(loop.batches):
            own = loop.images[batch].detach().requires_grad_()
            found = _features(loop, start, loop.view(step, own)).mean(dim=0)
            distance = (found - wanted[step]).square().sum() / scale
            entropy = torch.zeros_like(distance)
            if later_weight:
                loss = loop.loss(step, loop.forward(target), own, loop.batch_labels(step).detach())
                entropy = loss * (len(batch) / count)
            (slope,) = torch.autograd.grad(distance + later_weight * entropy, own)
            images.index_add_(0, batch, slope)
            distances.append(distance.detach())
            entropies.append(entropy.detach())
    return FeatureGradient(torch.stack(distances).sum(), torch.stack(entropies).sum(), images)


def _features(loop: InnerLoop, parameters: Tensor, images: Tensor) -> Tensor:
    """The inputs [n, d] of the last linear layer, with the flat `parameters`."""
    with watch_head(loop.network) as seen:
        loop.forward(parameters)(images)
    return torch.cat(seen).flatten(1)
