"""The committee's vote on every view of a set's images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.recipes.build import relabel_views
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import RELABEL_STAGE
from distill.run.context import Context, RunHandle, open_context
from distill.run.engines import in_turn
from distill.sets.set_file import read_set
from distill.sets.votes import RELABEL
from distill.teachers.loading import load_networks
from distill.teachers.spilling import SpilledEpochs, SpilledLogits, VotedEpoch
from synth.committee.relabel import (
    LabelledEpoch,
    QueriedViews,
    StoredMixes,
    StoredVotes,
    VotedLogits,
    draw_views,
    relabel_chosen,
    relabel_epoch,
)
from synth.committee.strategies.stored import aggregated_vote
from synth.committee.vote import Committee
from synth.images import Images


def vote_views(
    context: Context,
    table: RelabelTable,
    committee: Committee,
    images: Images,
    *,
    batch_statistics: bool,
) -> StoredVotes:
    """The vote on every view of `images` [n, c, h, w], in as many epochs as the table says."""
    label = labeller(context, table, committee, images, batch_statistics)

    def epochs() -> Iterator[tuple[int, VotedEpoch]]:
        for epoch in range(table.epochs):
            yield epoch, label(epoch)

    return collect(context, table, epochs(), batch_statistics)


@dataclass(frozen=True)
class VotingJob:
    """Plain data from which a process opens the votes on a set.

    Attributes:
        opening: of the run.
        set_path: set.h5.
        weights: of the members' votes.
        batch_statistics: as of `Committee.vote`.
        chosen: [e, n] bool, views that are labelled; None for all of them.
    """

    opening: RunHandle
    set_path: Path
    weights: list[float]
    batch_statistics: bool
    chosen: np.ndarray | None = None


def open_voting(polling: VotingJob) -> Callable[[int], VotedEpoch]:
    """What votes on the views of an epoch, in another process."""
    context = open_context(polling.opening)
    table = relabel_table(context)
    images = context.on_device(read_set(polling.set_path).seen_images)
    committee = Committee(load_networks(context), torch.tensor(polling.weights))
    chosen = None if polling.chosen is None else torch.from_numpy(polling.chosen)
    return labeller(context, table, committee, images, polling.batch_statistics, chosen)


def labeller(
    context: Context,
    table: RelabelTable,
    committee: Committee,
    images: Images,
    batch_statistics: bool,
    chosen: Tensor | None = None,
) -> Callable[[int], VotedEpoch]:
    """What votes on the views of an epoch; its views depend on its number alone."""
    views, size = relabel_views(table), table.batch_size

    def vote(batch: Tensor) -> Tensor:
        try:
            return aggregated_vote(committee, batch, table.aggregate, batch_statistics)
        except ImportError as error:
            raise WorkError(f"relabel.aggregate: {error}") from None

    def label(epoch: int) -> VotedEpoch:
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
                    QueriedViews(*drawn, chosen[epoch]),
                    vote,
                    context.classes,
                    size,
                    table.parts,
                    batch_statistics,
                )
        return VotedEpoch.packed(found, asked)

    return label


def collect(
    context: Context,
    table: RelabelTable,
    results: Iterable[tuple[int, VotedEpoch]],
    batch_statistics: bool,
    spool: SpilledEpochs | None = None,
) -> StoredVotes:
    """The votes of all epochs, however they come; those of a spool stay there."""
    epochs, asked = [], 0
    with context.progress.task(RELABEL_STAGE, table.epochs) as advance:
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
        queried=None if table.active == "none" else asked,
    )


def _logits(
    context: Context, epochs: Sequence[LabelledEpoch], spool: SpilledEpochs | None
) -> VotedLogits:
    """The logits of all epochs: in memory, or where the spool has them."""
    if spool is None:
        return torch.stack([epoch.logits for epoch in epochs])
    shape = torch.Size((len(epochs), len(epochs[0].ids), context.classes))
    return SpilledLogits([spool.path(number) for number in range(len(epochs))], shape)


def relabel_table(context: Context) -> RelabelTable:
    """[relabel]; raises WorkError where the recipe lacks it."""
    if context.recipe.relabel is None:
        raise WorkError("the recipe has no [relabel] table; add one")
    return context.recipe.relabel


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
