"""The committee's vote on every view of a set's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.recipes.build import relabel_views
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import RELABEL_STAGE
from distill.run.checkpoints import Saved
from distill.run.context import Context
from distill.sets.additions import BEFORE_VOTES
from distill.sets.set_file import read_set
from distill.sets.soft_labels import RELABEL
from distill.store.tensors import Arrays, from_arrays
from distill.teachers.loading import load_networks
from distill.teachers.spilling import SpilledLogits, pack_epoch, unpack_epoch
from synth.committee.relabel import (
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

# Epoch -> its votes, see `pack_epoch`.
Label = Callable[[int], tuple[Arrays, dict[str, Any]]]


@dataclass(frozen=True)
class Voting:
    """How the views of a set are voted on, as plain data.

    Attributes:
        set_path: set.h5.
        weights: of the members' votes.
        batch_statistics: as of `Committee.vote`.
        chosen: [e, n] bool, views that are labelled; None for all of them.
    """

    set_path: Path
    weights: list[float]
    batch_statistics: bool
    chosen: np.ndarray | None = None


def vote_epoch(voting: Voting, context: Context, epoch: int) -> tuple[Arrays, dict[str, Any]]:
    """The votes on the views of an epoch, see `pack_epoch`; networks and images are read once."""

    def opened() -> Label:
        content = context.once("set", partial(read_set, voting.set_path, BEFORE_VOTES))
        images = context.on_device(content.seen_images)
        committee = Committee(load_networks(context), torch.tensor(voting.weights))
        chosen = None if voting.chosen is None else torch.from_numpy(voting.chosen)
        table = context.recipe.table("relabel")
        return labeller(context, table, committee, images, voting.batch_statistics, chosen)

    return context.once("voting", opened)(epoch)


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
    with context.progress.task(RELABEL_STAGE, table.epochs):
        epochs = [label(epoch) for epoch in range(table.epochs)]
    saved = [(from_arrays(arrays), header) for arrays, header in epochs]
    return collect(context, table, saved, batch_statistics)


def voter(
    table: RelabelTable, committee: Committee, batch_statistics: bool
) -> Callable[[Tensor], Tensor]:
    """A function that gives the label logits [b, k] of views [b, c, h, w], as the table votes.

    It raises WorkError where the table's way to aggregate votes needs a package that is not there.
    """

    def vote(batch: Tensor) -> Tensor:
        try:
            return aggregated_vote(committee, batch, table.aggregate, batch_statistics)
        except ImportError as error:
            raise WorkError(f"relabel.aggregate: {error}") from None

    return vote


def labeller(
    context: Context,
    table: RelabelTable,
    committee: Committee,
    images: Images,
    batch_statistics: bool,
    chosen: Tensor | None = None,
) -> Label:
    """A function that labels the views of an epoch; the views depend on its number alone."""
    views, size = relabel_views(table), table.batch_size
    vote = voter(table, committee, batch_statistics)

    def label(epoch: int) -> tuple[Arrays, dict[str, Any]]:
        context.stop.check()
        # Views that are stored as a seed are drawn again with the same generator.
        generator = context.generator(RELABEL, epoch)
        with context.threads(min(size, len(images)), *committee.members):
            if chosen is None:
                epoch_votes = relabel_epoch(
                    images, vote, size, views, generator, table.mix, table.parts
                )
                queried = len(images)
            else:
                drawn = draw_views(
                    len(images), (images.shape[2], images.shape[3]), views, generator
                )
                epoch_votes, queried = relabel_chosen(
                    images,
                    QueriedViews(*drawn, chosen[epoch]),
                    vote,
                    context.classes,
                    size,
                    table.parts,
                    batch_statistics,
                )
        _check_finite(epoch_votes.logits, batch_statistics)
        context.progress.advance()
        return pack_epoch(epoch_votes, queried)

    return label


def _check_finite(logits: Tensor, batch_statistics: bool) -> None:
    """Refuse votes [n, k] that half precision does not hold: no later stage could use them."""
    lost = logits.numel() - int(logits.isfinite().sum())
    if not lost:
        return
    cause = (
        "batch statistics of few images can make a teacher's outputs explode: set relabel.bssl to "
        "off, or raise relabel.batch_size"
        if batch_statistics
        else "a teacher is badly scaled or diverged: choose another member, or train it again"
    )
    largest = torch.finfo(torch.float16).max
    raise WorkError(
        f"relabel: {lost:,} of {logits.numel():,} voted logits are not finite in half precision, "
        f"which ends at {largest:,.0f}; {cause}"
    )


def collect(
    context: Context,
    table: RelabelTable,
    saved: Sequence[Saved],
    batch_statistics: bool,
    files: Sequence[Path] = (),
) -> StoredVotes:
    """The votes of all epochs in order; their logits stay in `files` if any are given."""
    epochs = [unpack_epoch(epoch) for epoch in saved]
    logits: VotedLogits
    if files:
        shape = torch.Size((len(epochs), len(epochs[0].ids), context.classes))
        logits = SpilledLogits(files, shape)
    else:
        logits = torch.stack([epoch.logits for epoch in epochs])
    return StoredVotes(
        ids=torch.stack([epoch.ids for epoch in epochs]),
        views=torch.stack([epoch.views for epoch in epochs]),
        logits=logits,
        families=relabel_views(table).families,
        batch_size=table.batch_size,
        temperature=table.temperature,
        batch_statistics=batch_statistics,
        mixes=StoredMixes.stack([epoch.mixes for epoch in epochs]),
        parts=table.parts,
        seed=context.recipe.seed if table.views == "seed" else None,
        queried=None if table.active == "none" else sum(header["asked"] for _, header in saved),
    )


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
