"""The committee votes a soft label for every augmented view of every synthetic image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from distill.recipes.build import relabel_views
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import RELABEL_STAGE, SET
from distill.run.context import Context
from distill.run.engines import Load, in_turn
from distill.run.load import step_count, together
from distill.sets.additions import BEFORE_VOTES, add_votes
from distill.sets.set_file import read_set
from distill.sets.soft_labels import RELABEL
from distill.stages.stage import Stage, set_parts
from distill.stages.units.networks import Units, seen_by
from distill.stages.units.shapes import synthetic_shape, vote_bytes
from distill.stages.units.unit import NotPricedError, Part, Task, Unit, fixed_generator
from distill.store.large_arrays import is_large
from distill.teachers.active import choose_views
from distill.teachers.loading import load_committee
from distill.teachers.spilling import LOGITS
from distill.teachers.voting import Voting, collect, use_batch_statistics, vote_epoch
from synth.committee.relabel import draw_views, relabel_epoch
from synth.committee.strategies import Zones
from synth.committee.strategies.stored import apply_zones, with_unlabelled
from synth.committee.vote import Committee
from synth.images import Images, gather


def run_relabel(context: Context, table: RelabelTable) -> None:
    """Add /labels/full-fp16 to set.h5; finished epochs are not voted again on resuming."""
    path = context.run.path / SET
    content = context.once("set", partial(read_set, path, BEFORE_VOTES))
    images, hard = context.on_device(content.seen_images), content.seen_hard
    committee = load_committee(context)
    batch_statistics = use_batch_statistics(context, table, committee)
    checkpoint = context.checkpoint(RELABEL_STAGE)
    context.run.keep_metrics(RELABEL_STAGE)
    weights = committee.weights.tolist()
    for spec, weight in zip(context.recipe.table("committee").members, weights, strict=True):
        context.log(RELABEL_STAGE, member=spec, weight=weight)
    chosen = _chosen(context, table, committee, images, hard)
    mask = None if chosen is None else chosen.numpy()
    vote = partial(vote_epoch, Voting(path.resolve(), weights, batch_statistics, mask))
    large = is_large((table.epochs, len(images), context.classes), 2)
    with context.progress.task(RELABEL_STAGE, table.epochs):
        parts = context.map_parts(
            checkpoint,
            vote,
            [1] * table.epochs,
            partial(_load, context, len(images)),
            leave_out=(LOGITS,) if large else (),
        )
        epochs = [epoch for _, epoch in in_turn(parts)]
    files = [checkpoint.part(epoch).path for epoch in range(table.epochs)] if large else []
    votes = collect(context, table, epochs, batch_statistics, files)
    if chosen is not None:
        context.log(RELABEL_STAGE, views=chosen.numel(), teacher_passes=votes.queried)
        votes = with_unlabelled(votes, chosen, hard, table.unasked)
    if table.zones == "ferkd":
        votes = apply_zones(votes, hard, Zones())
    add_votes(path, votes)


def _load(context: Context, images: int, epoch: int) -> Load:
    """The load of the votes on an epoch: forward passes, each a third of a training step."""
    table: RelabelTable = context.recipe.table("relabel")
    batch = min(table.batch_size, images)
    steps = step_count(images, batch)
    members = context.recipe.table("committee").members
    training = together(context.training_load(spec, batch, steps) for spec in members)
    return Load(training.flops / 3, training.bytes)


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


def relabel_units(units: Units, table: RelabelTable) -> list[Task[Unit]]:
    """Batches of voted views; epochs are independent."""
    if table.active != "none":
        raise NotPricedError(f"relabel.active = {table.active} is not priced")
    count = synthetic_shape(units.recipe, units.shape).seen
    batch = min(table.batch_size, count)
    vote = _stored_vote(units, table, batch)
    return [Task(table.epochs, (Part(step_count(count, batch), vote),), mapped=True)]


def _stored_vote(units: Units, table: RelabelTable, batch: int) -> Unit:
    """One batch of views, voted on and rounded to what is stored."""
    views, generator = relabel_views(table), fixed_generator()

    def work(size: int) -> tuple[Callable[[], object], int]:
        committee, images = units.committee, units.images(size)
        own = table.bssl != "off" and committee.has_batch_norm

        def vote(batch: Tensor) -> Tensor:
            return committee.vote(batch, batch_statistics=own)

        def call() -> None:
            relabel_epoch(images, vote, len(images), views, generator, table.mix, table.parts)

        return call, 1

    def dry(size: int) -> None:
        units.meta_committee().vote(seen_by(views, units.meta_batch(size)[0]))

    name = f"stored vote of {units.listed}"
    return units.unit(name, batch, work, dry, units.size(units.members))


def _collected_bytes(units: Units, table: RelabelTable) -> int:
    """Bytes of the votes, held twice: epoch by epoch, and stacked."""
    count = synthetic_shape(units.recipe, units.shape).seen
    logits = (table.epochs, count, units.shape.classes)
    votes = 2 * vote_bytes(table, count, units.shape.classes)
    # Large labels stay on the disk, and one epoch at a time is in memory.
    return votes // table.epochs if is_large(logits, 2) else votes


STAGE = Stage(
    STAGE_ENTRIES[RELABEL_STAGE],
    run_relabel,
    set_parts("votes", "labels/full-fp16", attributes=False),
    relabel_units,
    held=_collected_bytes,
)
