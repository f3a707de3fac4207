"""Which piece of an expert trajectory an outer step matches, and what its inner loop sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from synth.augment import Augmentation, View
from synth.matching.features import FeatureChoice
from synth.matching.inner_loop import draw_batches


@dataclass(frozen=True)
class Segment:
    """A piece of an expert trajectory to match: start and target snapshots, [p] each.

    Attributes:
        start, target: flat parameters.
        network: what they are parameters of; None for the network of the problem.
    """

    start: Tensor
    target: Tensor
    network: nn.Module | None = None


@dataclass(frozen=True)
class SegmentChoice:
    """Which segment an outer step matches, and what its inner loop sees.

    Attributes:
        expert: index of the expert.
        start_epoch: epoch of the start snapshot.
        batches: for each inner step, the indices of its images.
        views: for each inner step, the view of its batch; None for no augmentation.
        network: index of the expert's network, where experts of several are matched.
        features: whose features are compared; None where none are.
    """

    expert: int
    start_epoch: int
    batches: list[Tensor]
    views: list[View] | None
    network: int = 0
    features: FeatureChoice | None = None


@dataclass(frozen=True)
class StartWindow:
    """The start epochs that may be drawn, both ends included.

    With `grow_steps`, the upper end begins at `grow_from` and reaches `last` after that many
    outer steps: easy, early segments come first. Source: DATM (Guo et al. 2024).

    Attributes:
        first: earliest start epoch.
        last: latest start epoch.
        grow_from: latest start epoch at outer step 0; None for `last` from the beginning.
        grow_steps: outer steps over which the window grows.
    """

    first: int
    last: int
    grow_from: int | None = None
    grow_steps: int = 0

    def __post_init__(self) -> None:
        lowest = self.last if self.grow_from is None else self.grow_from
        if not 0 <= self.first <= lowest <= self.last:
            raise ValueError(
                f"the start window is {self.first} ... {self.last}, growing from "
                f"{self.grow_from}; it must rise from 0 or above"
            )

    def last_at(self, step: int) -> int:
        """The latest start epoch at outer step `step`."""
        if self.grow_from is None or step >= self.grow_steps:
            return self.last
        return self.grow_from + (self.last - self.grow_from) * step // self.grow_steps


@dataclass(frozen=True)
class SegmentSampler:
    """Draws SegmentChoices.

    Attributes:
        experts: number of experts of the network.
        window: start epochs.
        inner_steps: N.
        batch_size: images per inner step; None for the whole set.
        augmentation: views of the inner steps; None for none.
        first_expert: index of the first of them, where experts of several networks are matched.
        network: index of the network.
    """

    experts: int
    window: StartWindow
    inner_steps: int
    batch_size: int | None = None
    augmentation: Augmentation | None = None
    first_expert: int = 0
    network: int = 0

    def draw(
        self, count: int, size: tuple[int, int], generator: Generator, step: int = 0
    ) -> SegmentChoice:
        """Draw a choice for outer step `step` and a set of `count` images of `size` (h, w)."""
        expert = self.first_expert + int(torch.randint(self.experts, (1,), generator=generator))
        first, last = self.window.first, self.window.last_at(step)
        start = int(torch.randint(first, last + 1, (1,), generator=generator))
        batches = draw_batches(count, self.batch_size, self.inner_steps, generator)
        views = None
        if self.augmentation is not None:
            views = [self.augmentation.sample(len(b), size, generator) for b in batches]
        return SegmentChoice(expert, start, batches, views, self.network)
