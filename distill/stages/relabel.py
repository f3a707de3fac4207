"""The committee votes a soft label for every augmented view of every synthetic image."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from distill.stages.relabel_spool import Epoch, Spool, SpooledLogits
from distill.stages.synthetic import FILE as SET
from distill.store.rows import is_large
from distill.store.sets import add_votes, read_set
from distill.store.voted import RELABEL
from distill.tables import RelabelTable
from synth.augment import Augmentation
from synth.committee import Committee
from synth.images import Images, gather
from synth.relabel import (
    AskedViews,
    LabelledEpoch,
    StoredMixes,
    StoredVotes,
    VotedLogits,
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
    images, hard = context.on_device(content.seen_images), content.seen_hard
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
    shape = (table.epochs, len(images), context.classes)
    spool = Spool(context.checkpoint(STAGE)) if is_large(shape, 2) else None
    found, missing = _found(table, spool)
    made = context.share(missing, lambda: here, partial(open_polling, away))
    epochs = itertools.chain(found, _kept(made, spool))
    votes = _collect(context, table, epochs, batch_statistics, spool)
    if chosen is not None:
        context.log(STAGE, views=chosen.numel(), teacher_passes=votes.asked)
        votes = with_unasked(votes, chosen, hard, table.unasked)
    if table.zones == "ferkd":
        votes = in_zones(votes, hard, Zones())
    add_votes(path, votes)


def _chosen(
    context: Context, table: RelabelTable, committee: Committee, images: Images, hard: Tensor
) -> Tensor | None:
    """Which views the committee labels, [e, n] bool; None for all of them."""
    if table.active == "none":
        return None
    size, views = (images.shape[2], images.shape[3]), relabel_views(table)
    drawn = [
        draw_views(len(images), size, views, context.generator(RELABEL, epoch))
        for epoch in range(table.epochs)
    ]
    return choose_views(context, committee, gather(images), hard.to(images.device), drawn)


def vote_views(
    context: Context,
    table: RelabelTable,
    committee: Committee,
    images: Images,
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


def open_polling(polling: Polling) -> Callable[[int], Epoch]:
    """What votes on the views of an epoch, in another process."""
    context = open_context(polling.opening)
    table = _table(context)
    images = context.on_device(read_set(polling.set_path).seen_images)
    committee = Committee(load_networks(context), torch.tensor(polling.weights))
    chosen = None if polling.chosen is None else torch.from_numpy(polling.chosen)
    return _labeller(context, table, committee, images, polling.batch_statistics, chosen)


def _labeller(
    context: Context,
    table: RelabelTable,
    committee: Committee,
    images: Images,
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
        return Epoch.packed(found, asked)

    return label


def _found(table: RelabelTable, spool: Spool | None) -> tuple[list[tuple[int, Epoch]], list[int]]:
    """Epochs that were voted before an interruption, and the numbers of the others."""
    numbers = range(table.epochs)
    if spool is None:
        return [], list(numbers)
    looked = [(number, spool.find(number)) for number in numbers]
    found = [(number, epoch) for number, epoch in looked if epoch is not None]
    return found, [number for number, epoch in looked if epoch is None]


def _kept(made: Iterable[tuple[int, Epoch]], spool: Spool | None) -> Iterator[tuple[int, Epoch]]:
    """Epochs as they are voted; where there is a spool, it has their logits."""
    for number, epoch in made:
        if spool is None:
            yield number, epoch
        else:
            spool.keep(number, epoch)
            yield number, epoch.without_logits()


def _collect(
    context: Context,
    table: RelabelTable,
    results: Iterable[tuple[int, Epoch]],
    batch_statistics: bool,
    spool: Spool | None = None,
) -> StoredVotes:
    """The votes of all epochs, however they come; those of a spool stay there."""
    epochs, asked = [], 0
    with context.progress.task(STAGE, table.epochs) as advance:
        for _, epoch in in_turn(results):
            epochs.append(epoch.unpacked())
            asked += epoch.asked
            advance()
    return StoredVotes(
        ids=torch.stack([epoch.ids for epoch in epochs]),
        views=torch.stack([epoch.views for epoch in epochs]),
        logits=_logits(context, epochs, spool),
        families=relabel_views(table).families,
        batch_size=table.batch_size,
        temperature=table.temperature,
        batch_statistics=batch_statistics,
        mixes=StoredMixes.stack([epoch.mixes for epoch in epochs]),
        parts=table.parts,
        seed=context.recipe.seed if table.views == "seed" else None,
        asked=None if table.active == "none" else asked,
    )


def _logits(context: Context, epochs: Sequence[LabelledEpoch], spool: Spool | None) -> VotedLogits:
    """The logits of all epochs: in memory, or where the spool has them."""
    if spool is None:
        return torch.stack([epoch.logits for epoch in epochs])
    shape = torch.Size((len(epochs), len(epochs[0].ids), context.classes))
    return SpooledLogits([spool.path(number) for number in range(len(epochs))], shape)


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
