"""The committee votes a soft label for every augmented view of every synthetic image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.build import build_views
from distill.context import Context
from distill.engines import in_turn
from distill.errors import WorkError
from distill.labelling import aggregated_vote, in_zones, with_unasked
from distill.opening import Opening, open_context, opening_of
from distill.stages.active import choose_views
from distill.stages.committee import load_committee, load_networks
from distill.stages.synthetic import FILE as SET
from distill.stages.tensors import from_arrays, to_arrays
from distill.store.sets import add_votes, read_set
from distill.store.voted import RELABEL
from distill.tables import RelabelTable
from synth.augment import Augmentation, Mix, MixKind
from synth.committee import Committee
from synth.relabel import (
    AskedViews,
    LabelledEpoch,
    StoredMixes,
    StoredVotes,
    draw_views,
    relabel_chosen,
    relabel_epoch,
)
from synth.strategies import Zones

STAGE = "relabel"


def run_relabel(context: Context) -> None:
    """Add /labels/full-fp16 to set.h5."""
    table = _table(context)
    path = context.run.path / SET
    content = read_set(path)
    images, hard = content.seen_images.to(context.device), content.seen_hard
    committee = load_committee(context)
    batch_statistics = use_batch_statistics(context, table, committee)
    context.run.keep_metrics(STAGE)
    names = context.recipe.committee.members if context.recipe.committee else []
    for spec, weight in zip(names, committee.weights.tolist(), strict=True):
        context.log(STAGE, member=spec, weight=weight)
    chosen = _chosen(context, table, committee, images, hard)
    away = Polling(
        opening_of(context),
        path.resolve(),
        committee.weights.tolist(),
        batch_statistics,
        None if chosen is None else chosen.numpy(),
    )
    here = _labeller(context, table, committee, images, batch_statistics, chosen)
    epochs = context.share(range(table.epochs), lambda: here, partial(open_polling, away))
    votes = _collect(context, table, epochs, batch_statistics)
    if chosen is not None:
        context.log(STAGE, views=chosen.numel(), teacher_passes=votes.asked)
        votes = with_unasked(votes, chosen, hard, table.unasked)
    if table.zones == "ferkd":
        votes = in_zones(votes, hard, Zones())
    add_votes(path, votes)


def _chosen(
    context: Context, table: RelabelTable, committee: Committee, images: Tensor, hard: Tensor
) -> Tensor | None:
    """Which views the committee labels, [e, n] bool; None for all of them."""
    if table.active == "none":
        return None
    size, views = (images.shape[2], images.shape[3]), relabel_views(table)
    drawn = [
        draw_views(len(images), size, views, context.generator(RELABEL, epoch))
        for epoch in range(table.epochs)
    ]
    return choose_views(context, committee, images, hard.to(images.device), drawn)


def vote_views(
    context: Context,
    table: RelabelTable,
    committee: Committee,
    images: Tensor,
    *,
    batch_statistics: bool,
) -> StoredVotes:
    """The vote on every view of `images` [n, c, h, w], in as many epochs as the table says."""
    label = _labeller(context, table, committee, images, batch_statistics)

    def epochs() -> Iterator[tuple[int, Epoch]]:
        for epoch in range(table.epochs):
            yield epoch, label(epoch)

    return _collect(context, table, epochs(), batch_statistics)


@dataclass(frozen=True)
class Polling:
    """Plain data from which a process opens the votes on a set.

    Attributes:
        opening: of the run.
        set_path: set.h5.
        weights: of the members' votes.
        batch_statistics: as of `Committee.vote`.
        chosen: [e, n] bool, views that are labelled; None for all of them.
    """

    opening: Opening
    set_path: Path
    weights: list[float]
    batch_statistics: bool
    chosen: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Epoch:
    """A `LabelledEpoch` as plain arrays.

    Attributes:
        tensors: its ids, views and logits.
        mixes: (kind, {partners, parameters}) of each batch, or nothing.
        asked: views that went through the teachers.
    """

    tensors: dict[str, np.ndarray]
    mixes: list[tuple[MixKind, dict[str, np.ndarray]]]
    asked: int

    def unpacked(self) -> LabelledEpoch:
        """The epoch as tensors."""
        mixes = [Mix(kind, **from_arrays(arrays)) for kind, arrays in self.mixes]
        return LabelledEpoch(**from_arrays(self.tensors), mixes=mixes)


def open_polling(polling: Polling) -> Callable[[int], Epoch]:
    """What votes on the views of an epoch, in another process."""
    context = open_context(polling.opening)
    table = _table(context)
    images = read_set(polling.set_path).seen_images.to(context.device)
    committee = Committee(load_networks(context), torch.tensor(polling.weights))
    chosen = None if polling.chosen is None else torch.from_numpy(polling.chosen)
    return _labeller(context, table, committee, images, polling.batch_statistics, chosen)


def _labeller(
    context: Context,
    table: RelabelTable,
    committee: Committee,
    images: Tensor,
    batch_statistics: bool,
    chosen: Tensor | None = None,
) -> Callable[[int], Epoch]:
    """What votes on the views of an epoch; its views depend on its number alone."""
    views, size = relabel_views(table), table.batch_size

    def vote(batch: Tensor) -> Tensor:
        return aggregated_vote(committee, batch, table.aggregate, batch_statistics)

    def label(epoch: int) -> Epoch:
        context.stop.check()
        # A reader of views that come from the seed draws them with the same generator.
        generator = context.generator(RELABEL, epoch)
        with context.threads(min(size, len(images)), *committee.members):
            if chosen is None:
                found = relabel_epoch(images, vote, size, views, generator, table.mix, table.parts)
                asked = len(images)
            else:
                drawn = draw_views(
                    len(images), (images.shape[2], images.shape[3]), views, generator
                )
                found, asked = relabel_chosen(
                    images,
                    AskedViews(*drawn, chosen[epoch]),
                    vote,
                    context.classes,
                    size,
                    table.parts,
                    batch_statistics,
                )
        tensors = {"ids": found.ids, "views": found.views, "logits": found.logits}
        mixes = [
            (mix.kind, to_arrays({"partners": mix.partners, "parameters": mix.parameters}))
            for mix in found.mixes
        ]
        return Epoch(to_arrays(tensors), mixes, asked)

    return label


def _collect(
    context: Context,
    table: RelabelTable,
    results: Iterable[tuple[int, Epoch]],
    batch_statistics: bool,
) -> StoredVotes:
    """The votes of all epochs, however they come."""
    epochs, asked = [], 0
    with context.progress.task(STAGE, table.epochs) as advance:
        for _, epoch in in_turn(results):
            epochs.append(epoch.unpacked())
            asked += epoch.asked
            advance()
    return StoredVotes(
        ids=torch.stack([epoch.ids for epoch in epochs]),
        views=torch.stack([epoch.views for epoch in epochs]),
        logits=torch.stack([epoch.logits for epoch in epochs]),
        families=relabel_views(table).families,
        batch_size=table.batch_size,
        temperature=table.temperature,
        batch_statistics=batch_statistics,
        mixes=StoredMixes.stack([epoch.mixes for epoch in epochs]),
        parts=table.parts,
        seed=context.recipe.seed if table.views == "seed" else None,
        asked=None if table.active == "none" else asked,
    )


def _table(context: Context) -> RelabelTable:
    if context.recipe.relabel is None:
        raise WorkError("the recipe has no [relabel] table; add one")
    return context.recipe.relabel


def relabel_views(table: RelabelTable) -> Augmentation:
    """The augmentation of the labelled views; without families, the images as they are."""
    return build_views(table.augmentation, one_per_batch=False) or Augmentation(())


def use_batch_statistics(context: Context, table: RelabelTable, committee: Committee) -> bool:
    """Whether the teachers' BatchNorm uses each batch's own statistics (BSSL).

    "auto" is on for optimised images, whose statistics are not those of real images, and off for
    selected ones. Source: CV-DD; HALD for the rule.
    """
    if table.bssl == "off" or (table.bssl == "auto" and context.recipe.select is not None):
        return False
    if not committee.has_batch_norm:
        context.progress.say("relabel: no member has BatchNorm, so relabel.bssl does nothing")
        return False
    return True
