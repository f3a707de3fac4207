"""The committee votes a soft label for every augmented view of every synthetic image."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.build import build_views
from distill.context import Context
from distill.errors import WorkError
from distill.labelling import aggregated_vote, in_zones
from distill.stages.committee import load_committee
from distill.stages.synthetic import FILE as SET
from distill.store.sets import add_votes, read_set
from distill.store.voted import RELABEL
from distill.tables import RelabelTable
from synth.augment import Augmentation
from synth.committee import Committee
from synth.relabel import StoredMixes, StoredVotes, relabel_epoch
from synth.strategies import Zones

STAGE = "relabel"


def run_relabel(context: Context) -> None:
    """Add /labels/full-fp16 to set.h5."""
    table = context.recipe.relabel
    if table is None:
        raise WorkError("the recipe has no [relabel] table; add one")
    path = context.run.path / SET
    images = read_set(path).seen_images.to(context.device)
    committee = load_committee(context)
    batch_statistics = use_batch_statistics(context, table, committee)
    context.run.keep_metrics(STAGE)
    names = context.recipe.committee.members if context.recipe.committee else []
    for spec, weight in zip(names, committee.weights.tolist(), strict=True):
        context.log(STAGE, member=spec, weight=weight)
    votes = vote_views(context, table, committee, images, batch_statistics=batch_statistics)
    if table.zones == "ferkd":
        votes = in_zones(votes, read_set(path).seen_hard, Zones())
    add_votes(path, votes)


def vote_views(
    context: Context,
    table: RelabelTable,
    committee: Committee,
    images: Tensor,
    *,
    batch_statistics: bool,
) -> StoredVotes:
    """The vote on every view of `images` [n, c, h, w], in as many epochs as the table says."""
    views = relabel_views(table)

    def vote(batch: Tensor) -> Tensor:
        return aggregated_vote(committee, batch, table.aggregate, batch_statistics)

    epochs = []
    progress = context.progress.task(STAGE, table.epochs)
    batch = min(table.batch_size, len(images))
    with progress as advance, context.threads(batch, *committee.members):
        for epoch in range(table.epochs):
            context.stop.check()
            # A reader of views that come from the seed draws them with the same generator.
            generator = context.generator(RELABEL, epoch)
            epochs.append(
                relabel_epoch(
                    images, vote, table.batch_size, views, generator, table.mix, table.parts
                )
            )
            advance()
    return StoredVotes(
        ids=torch.stack([epoch.ids for epoch in epochs]),
        views=torch.stack([epoch.views for epoch in epochs]),
        logits=torch.stack([epoch.logits for epoch in epochs]),
        families=views.families,
        batch_size=table.batch_size,
        temperature=table.temperature,
        batch_statistics=batch_statistics,
        mixes=StoredMixes.stack([epoch.mixes for epoch in epochs]),
        parts=table.parts,
        seed=context.recipe.seed if table.views == "seed" else None,
    )


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
