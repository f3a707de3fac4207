"""Recover images: they are optimised until the committee recognises them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from distill.names import choices, resolve
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.recover import RecoverTable
from distill.run.artefacts import RECOVER_STAGE
from distill.run.context import Context
from distill.run.engines import Load, in_turn
from distill.run.load import step_count, together
from distill.stages.recover.batch import DrawnMembers, recover_batch
from distill.stages.recover.disk import IMAGES, DiskImages, put_starts
from distill.stages.recover.real import make_anchors, make_groups
from distill.stages.recover.recipe import eligible, planned_batches, set_shape
from distill.stages.recover.units import recover_units
from distill.stages.stage import Stage, made_images
from distill.stages.write_set import write_synthetic
from distill.store.large_arrays import is_large
from distill.teachers.loading import load_members
from synth.committee.weights import VoteWeighting
from synth.images import Images, gather
from synth.recovery import RecoverBatch, draw_members

# Losses change slowly: every tenth step and the last are enough for a curve.
_LOG_EVERY = 10


def run_recover(context: Context, table: RecoverTable) -> None:
    """Make set.h5; batches that were recovered before an interruption are not recovered again.

    Raises:
        WorkError: if a member has no statistics to compare with.
        DivergedRunError: if the loss diverges; the last checkpoint stays.
    """
    _, weighting = load_members(context)
    checkpoint = context.checkpoint(RECOVER_STAGE)
    context.run.keep_metrics(RECOVER_STAGE)
    batches = planned_batches(context)
    # Kept in the checkpoint, where workers find them.
    if table.reads_groups:
        make_groups(context)
    if table.reads_anchors:
        make_anchors(context)
    put_starts(checkpoint, partial(_starting_images, context, table))
    drawn = [_drawn_members(context, table, weighting, batch) for batch in batches]
    units = [table.iterations] * len(batches)
    with context.progress.task(RECOVER_STAGE, sum(units)):
        recover = partial(recover_batch, drawn)
        load = partial(_load, context, drawn, batches)
        parts = context.map_parts(checkpoint, recover, units, load, leave_out=(IMAGES,))
        for number, (_, steps) in in_turn(parts):
            _log(context, table, batches[number].call, drawn[number], number, steps)
    names = ", ".join(spec for _, spec in eligible(context))
    images = DiskImages(torch.Size(set_shape(context)), batches, checkpoint)
    large = is_large(images.shape, 4)
    write_synthetic(context, images if large else gather(images), network=names)


def _drawn_members(
    context: Context, table: RecoverTable, weighting: VoteWeighting, batch: RecoverBatch
) -> DrawnMembers:
    """The members that recover a batch, and the weights of their votes."""
    pool = eligible(context)
    priors = [weighting.scores[place] for place, _ in pool]
    generator = context.generator(RECOVER_STAGE, "members", batch.call)
    schedule = resolve(choices("recover.schedule")[table.schedule])
    drawn = draw_members(schedule, priors, table.drawn, batch.call, generator)
    places = [pool[index][0] for index in drawn]
    weights = weighting.weights(
        table.vote_temperature, context.generator(RECOVER_STAGE, "weights", batch.call), places
    )
    return DrawnMembers(tuple(places), tuple(weights.tolist()))


def _load(
    context: Context, drawn: Sequence[DrawnMembers], batches: Sequence[RecoverBatch], number: int
) -> Load:
    """The load of a batch: a forward and a backward pass of its members in each step."""
    table: RecoverTable = context.recipe.table("recover")
    members, images = context.recipe.table("committee").members, len(batches[number].places)
    batch = min(table.batch_size or images, images)
    steps = table.iterations * step_count(images, batch)
    places = drawn[number].members
    return together(context.training_load(members[place], batch, steps) for place in places)


def _log(
    context: Context,
    table: RecoverTable,
    call: int,
    drawn: DrawnMembers,
    number: int,
    steps: Sequence[dict[str, Any]],
) -> None:
    """The metrics of a batch: its members, and some of its steps."""
    specs, first = dict(eligible(context)), number * table.iterations
    members, weights = [specs[place] for place in drawn.members], list(drawn.weights)
    context.log(RECOVER_STAGE, step=first, call=call, members=members, weights=weights)
    for step in steps:
        index = step.pop("index")
        if index % _LOG_EVERY == 0 or index == table.iterations - 1:
            context.log(RECOVER_STAGE, step=first + index, **step)


def _starting_images(context: Context, table: RecoverTable) -> Images:
    """Images [k * ipc, c, h, w] to start from, in class order."""
    images: Images = resolve(choices("recover.init")[table.init])(context, table)
    return images


STAGE = Stage(
    STAGE_ENTRIES[RECOVER_STAGE], run_recover, made_images, recover_units, splits=("train",)
)
