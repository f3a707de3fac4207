"""Soft labels for augmented views: voted once and stored, or computed online."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from synth.augment import Augmentation, Mix, MixKind, View, draw_mix
from synth.images import Images, images_at
from synth.training.batches import Batch, split_batches, split_parts

Labeller = Callable[[Tensor], Tensor]

# Views whose labels are averaged in one step.
_VIEW_BATCH = 4096


class VotedLogits(Protocol):
    """Voted logits [e, n, k] read in batches: a tensor, or a reader of files."""

    @property
    def shape(self) -> torch.Size:
        """Epochs, images and classes: [e, n, k]."""
        ...

    def __getitem__(self, index: Any, /) -> Tensor:
        """The logits [n, k] of epoch `row`, or [b, k] at `row, slice`."""
        ...


@dataclass(frozen=True)
class StoredMixes:
    """The mix of every batch of every epoch.

    Attributes:
        kind: "cutmix" or "mixup".
        partners: [e, n] for each view, the position in its own batch that it is mixed with.
        parameters: [e, b, m] float16 box or share of each of b batches, see `Mix`.
    """

    kind: MixKind
    partners: Tensor
    parameters: Tensor

    def of_epoch(self, row: int, batches: Sequence[slice]) -> list[Mix]:
        """The mixes of epoch `row`, cut into these batches."""
        return [
            Mix(
                self.kind,
                self.partners[row, batch_slice].long(),
                self.parameters[row, index].float(),
            )
            for index, batch_slice in enumerate(batches)
        ]

    @staticmethod
    def stack(epochs: Sequence[Sequence[Mix]]) -> StoredMixes | None:
        """The mixes of some epochs side by side; None where nothing is mixed."""
        if not epochs or not epochs[0]:
            return None
        partners = [torch.cat([mix.partners for mix in mixes]) for mixes in epochs]
        parameters = [torch.stack([mix.parameters for mix in mixes]).half() for mixes in epochs]
        return StoredMixes(epochs[0][0].kind, torch.stack(partners), torch.stack(parameters))


@dataclass(frozen=True)
class StoredVotes:
    """A soft label for every view of every image, by epochs.

    Attributes:
        ids: [e, n] index of the image at each position of each epoch.
        views: [e, n, v] float16 augmentation parameters; v is 0 without augmentation.
        logits: [e, n, k] float16 voted logits, in memory or read by batches.
        families: augmentation families, in the order of their parameters in `views`.
        batch_size: views labelled together; students must train on the same batches.
        temperature: at which students should match the logits.
        batch_statistics: whether the teachers' BatchNorm used each part's own statistics.
        mixes: how the views of a batch were mixed before they were labelled, or None.
        parts: parts that a batch was labelled in; students must train on the same parts.
        seed: of the run, if ids, views and mixes can be drawn from it again; or None.
        queried: views that the teachers labelled, if not all of them; or None.
    """

    ids: Tensor
    views: Tensor
    logits: VotedLogits
    families: tuple[str, ...]
    batch_size: int
    temperature: float
    batch_statistics: bool
    mixes: StoredMixes | None = None
    parts: int = 1
    seed: int | None = None
    queried: int | None = None

    def batches(self, images: Images, epoch: int) -> Iterator[Batch]:
        """The batches of training epoch `epoch`; the stored epochs are cycled."""
        row = epoch % len(self.ids)
        slices = split_batches(self.ids.shape[1], self.batch_size)
        view = View.from_tensor(self.families, self.views[row].float())
        mixes = self.mixes.of_epoch(row, slices) if self.mixes is not None else ()
        seen = _shown(images, self.ids[row].long(), _cut(view, slices), slices, mixes)
        for index, (batch, batch_slice) in enumerate(zip(seen, slices, strict=True)):
            logits = self.logits[row, batch_slice].float().to(images.device, non_blocking=True)
            ids = self.ids[row, batch_slice].long()
            yield Batch(batch, logits, self.parts, ids, mixes[index] if mixes else None)

    @property
    def whole(self) -> Tensor:
        """All logits [e, n, k] in memory."""
        if isinstance(self.logits, Tensor):
            return self.logits
        return torch.stack([self.logits[row] for row in range(self.logits.shape[0])])

    def mean_probabilities(self) -> Tensor:
        """Mean soft label [n, k] of each image over its views, at temperature 1.

        The label of a mixed view describes its partner too.
        """
        epochs, n, k = self.logits.shape
        sums = torch.zeros(n, k)
        for row in range(epochs):
            for batch_slice in split_batches(n, _VIEW_BATCH):
                probabilities = torch.softmax(self.logits[row, batch_slice].float(), dim=-1)
                sums.index_add_(0, self.ids[row, batch_slice].long(), probabilities)
        return sums / epochs


@dataclass(frozen=True)
class LabelledEpoch:
    """One epoch of labelled views.

    Attributes:
        ids: [n] int64 image at each position.
        views: [n, v] float16 augmentation parameters.
        logits: [n, k] float16 voted logits.
        mixes: the mix of each batch, or nothing.
    """

    ids: Tensor
    views: Tensor
    logits: Tensor
    mixes: Sequence[Mix] = ()


def draw_views(
    count: int, size: tuple[int, int], augmentation: Augmentation, generator: Generator
) -> tuple[Tensor, View]:
    """Draw the order and the views of one epoch, before anything is labelled.

    Args:
        count: n, images.
        size: (h, w) of the images.
        augmentation: families applied all in turn.
        generator: draws both; the same generator draws the same again.

    Returns:
        ids [n] int64, and the view of the image at each position.
    """
    ids = torch.randperm(count, generator=generator)
    return ids, augmentation.sample(count, size, generator)


def draw_mixes(
    kind: MixKind, batches: Sequence[slice], size: tuple[int, int], generator: Generator
) -> list[Mix]:
    """Draw how each batch of an epoch is mixed, after its views; nothing for the kind "none"."""
    if kind == "none":
        return []
    return [
        draw_mix(kind, batch_slice.stop - batch_slice.start, size, generator)
        for batch_slice in batches
    ]


def relabel_epoch(
    images: Images,
    labeller: Labeller,
    batch_size: int,
    augmentation: Augmentation,
    generator: Generator,
    mix: MixKind = "none",
    parts: int = 1,
) -> LabelledEpoch:
    """Draw one epoch of views and label them.

    Args:
        images: [n, c, h, w] of the synthetic set.
        labeller: images [b, c, h, w] -> logits [b, k], called on whole parts of batches.
        batch_size: images labelled, and mixed with each other, together.
        augmentation: families applied all in turn.
        generator: draws order, views and mixes.
        mix: how the views of a batch are mixed before they are labelled.
        parts: parts of a batch that the labeller sees one by one.
    """
    n, _, h, w = images.shape
    ids, view = draw_views(n, (h, w), augmentation, generator)
    slices = split_batches(n, batch_size)
    mixes = draw_mixes(mix, slices, (h, w), generator)
    shown = _shown(images, ids, _cut(view, slices), slices, mixes)
    logits = [_labelled(labeller, seen, parts) for seen in shown]
    return LabelledEpoch(ids, view.to_tensor(n).half(), torch.cat(logits).half().cpu(), mixes)


@dataclass(frozen=True)
class QueriedViews:
    """Views of one epoch, and which of them the teachers label.

    Attributes:
        ids: [n] int64 image at each position.
        view: of each position.
        chosen: [n] bool, positions to label.
    """

    ids: Tensor
    view: View
    chosen: Tensor


def relabel_chosen(
    images: Images,
    queried: QueriedViews,
    labeller: Labeller,
    classes: int,
    batch_size: int,
    parts: int = 1,
    whole: bool = False,
) -> tuple[LabelledEpoch, int]:
    """Label the chosen views of an epoch; the logits of the others are 0.

    Args:
        images: [n, c, h, w] of the synthetic set.
        queried: the epoch's views, and which are chosen.
        labeller: images [b, c, h, w] -> logits [b, k].
        classes: k.
        batch_size: as of `relabel_epoch`.
        parts: as of `relabel_epoch`.
        whole: whether the labeller sees a whole part of a batch, for its BatchNorm statistics, if
            any view of it is chosen.

    Returns:
        The epoch, and how many views the labeller saw.
    """
    n, count = len(queried.ids), 0
    logits = torch.zeros(n, classes)
    for batch_slice in split_batches(n, batch_size):
        for part in split_parts(batch_slice.stop - batch_slice.start, parts):
            positions = torch.arange(batch_slice.start, batch_slice.stop)[part]
            chosen = queried.chosen[positions]
            seen = positions if whole and bool(chosen.any()) else positions[chosen]
            if len(seen):
                views = queried.view.select(seen).apply(images_at(images, queried.ids[seen]))
                logits[seen] = labeller(views).float().cpu()
                count += len(seen)
    logits[~queried.chosen] = 0.0
    return LabelledEpoch(queried.ids, queried.view.to_tensor(n).half(), logits.half()), count


def labelled_online(
    images: Images,
    labeller: Labeller,
    batch_size: int,
    augmentation: Augmentation,
    generator: Generator,
    mix: MixKind = "none",
    parts: int = 1,
) -> Iterator[Batch]:
    """One epoch of views that `labeller` labels as they are drawn; nothing is stored."""
    n, _, h, w = images.shape
    slices = split_batches(n, batch_size)
    ids, views = _draw_batches(augmentation, slices, (h, w), generator)
    mixes = draw_mixes(mix, slices, (h, w), generator)
    for index, seen in enumerate(_shown(images, ids, views, slices, mixes)):
        mixed = mixes[index] if mixes else None
        yield Batch(seen, _labelled(labeller, seen, parts), parts, ids[slices[index]], mixed)


def _draw_batches(
    augmentation: Augmentation, slices: Sequence[slice], size: tuple[int, int], generator: Generator
) -> tuple[Tensor, list[View]]:
    """The order [n] of an epoch, and the view of each batch, which may be of one family."""
    n = slices[-1].stop
    if not augmentation.one_per_batch:
        ids, view = draw_views(n, size, augmentation, generator)
        return ids, _cut(view, slices)
    ids = torch.randperm(n, generator=generator)
    return ids, [augmentation.sample(part.stop - part.start, size, generator) for part in slices]


def _cut(view: View, slices: Sequence[slice]) -> list[View]:
    return [view.select(batch_slice) for batch_slice in slices]


def _shown(
    images: Images,
    ids: Tensor,
    views: Sequence[View],
    slices: Sequence[slice],
    mixes: Sequence[Mix],
) -> Iterator[Tensor]:
    """The batches of an epoch as teacher and student see them: selected, augmented, mixed."""
    for index, (view, batch_slice) in enumerate(zip(views, slices, strict=True)):
        seen = view.apply(images_at(images, ids[batch_slice]))
        yield mixes[index].apply(seen) if mixes else seen


def _labelled(labeller: Labeller, seen: Tensor, parts: int) -> Tensor:
    return torch.cat([labeller(seen[part]) for part in split_parts(len(seen), parts)])
