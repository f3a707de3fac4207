"""Train the committee of teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from distill.errors import WorkError
from distill.recipes.build import build_views
from distill.recipes.specs import program_digest
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.committee import VOTE_KEYS, CommitteeTable
from distill.run.artefacts import COMMITTEE, COMMITTEE_STAGE
from distill.run.context import Context
from distill.run.engines import Load, in_turn
from distill.run.load import step_count
from distill.stages.stage import Stage, output_file
from distill.stages.units.networks import Units
from distill.stages.units.unit import Part, Task, Unit
from distill.store.committee import Member, write_committee
from distill.store.tensors import Arrays, to_arrays
from distill.teachers.inspection import comes_whole, refuse_chance
from distill.teachers.pretrained import comes_trained, member_network, weights_digests
from projectors.codecs.weights import Weights
from synth.images import HardLogits
from synth.losses import hard_logits, soft_cross_entropy
from synth.training.batches import Batch, shuffled_batches
from synth.training.loop import Epoch, TrainSettings, train
from synth.training.prediction import accuracy, predict
from synth.training.rounding import RoundedNetwork

State = dict[str, Tensor]

# Loss and held-out accuracy of each epoch.
Curve = list[tuple[float, float]]

Header = dict[str, Any]


def run_committee(context: Context, table: CommitteeTable) -> None:
    """Make committee.h5; a finished member is not trained again after an interruption."""
    checkpoint = context.checkpoint(COMMITTEE_STAGE)
    context.run.keep_metrics(COMMITTEE_STAGE)
    members = []
    units = [table.training(spec).epochs for spec in table.members]
    with context.progress.task(COMMITTEE_STAGE, sum(units)):
        parts = context.map_parts(checkpoint, _train_member, units, partial(_load, context))
        for index, (state, header) in in_turn(parts):
            spec, kept = table.members[index], header["kept"]
            for epoch, (loss, value) in enumerate(header["curve"], start=1):
                context.log(COMMITTEE_STAGE, member=spec, epoch=epoch, loss=loss, accuracy=value)
            ordered = {name: state[name] for name in header["order"]}
            value = header["curve"][kept - 1][1]
            members.append(Member(spec, value, ordered, kept, program_digest(spec)))
    for trained in members:
        refuse_chance(trained.spec, trained.accuracy, context.classes, trained=bool(trained.epoch))
    path = context.run.path / COMMITTEE
    write_committee(path, members, context.data.digest, context.data.class_names)


def _load(context: Context, index: int) -> Load:
    """The load of a member that is trained to its last epoch."""
    committee: CommitteeTable = context.recipe.table("committee")
    spec = committee.members[index]
    table, images = committee.training(spec), len(context.data.train)
    batch = min(table.batch_size, images)
    steps = 0 if comes_whole(committee, spec) else table.epochs * step_count(images, batch)
    return context.training_load(spec, batch, steps)


def _train_member(context: Context, index: int) -> tuple[Arrays, Header]:
    """Train one member.

    Without patience the last epoch is kept; with it the best one on the validation split, and
    training stops after `patience` epochs without improvement: overconfident teachers make worse
    labels. A model of torchvision starts from its published weights; it is not trained if their
    head has as many classes as the data, and nor is a teacher, or any other with `weights`.
    """
    committee: CommitteeTable = context.recipe.table("committee")
    spec = committee.members[index]
    table = committee.training(spec)
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    network = member_network(context, spec, index)
    if comes_trained(context, spec, table.weights, network):
        if table.weight_bits is not None:
            raise WorkError(
                f"committee.weight_bits rounds weights while they are trained, but {spec} comes "
                "trained; leave it out"
            )
        return _pretrained(context, network, table.epochs)
    generator = context.generator(COMMITTEE_STAGE, index)
    views = build_views(table.augmentation, one_per_batch=False)
    soft = HardLogits(labels, context.classes)
    epochs = _trained(
        network,
        lambda epoch: shuffled_batches(images, soft, table.batch_size, views, generator),
        _settings(committee, spec),
        table.weight_bits,
    )
    curve: Curve = []
    state: State = {}
    kept = 0
    with context.threads(table.batch_size, network):
        for trained, epoch in epochs:
            context.stop.check()
            curve.append((epoch.loss, accuracy(trained, held_images, held_labels)))
            context.progress.advance(f"{spec}, loss {epoch.loss:.3f}, accuracy {curve[-1][1]:.3f}")
            if table.patience is None or not kept or curve[-1][1] > curve[kept - 1][1]:
                state, kept = _copy(trained), len(curve)
            elif len(curve) - kept >= table.patience:
                context.progress.advance(count=table.epochs - len(curve))
                break
    return _packed(state, curve, kept)


def _trained(
    network: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    settings: TrainSettings,
    weight_bits: int | None,
) -> Iterator[tuple[nn.Module, Epoch]]:
    """The epochs of a training, or of two of half of them, of which the second rounds the weights.

    The second is a whole training too, with a schedule of its own: networks that are rounded from
    the first step on learn less. With each epoch comes what was trained in it.
    """
    half = settings.epochs // 2
    first = settings if weight_bits is None else replace(settings, epochs=half)
    for epoch in train(network, batches, first):
        yield network, epoch
    if weight_bits is None:
        return
    rounded = RoundedNetwork(network, Weights(weight_bits).rounded)
    for epoch in train(rounded, batches, replace(settings, epochs=settings.epochs - half)):
        yield rounded, epoch


def _pretrained(context: Context, network: nn.Module, epochs: int) -> tuple[Arrays, Header]:
    """A member with weights of its own: tested, not trained."""
    images, labels = context.split("validation")
    value = accuracy(network, images, labels)
    loss = soft_cross_entropy(predict(network, images), hard_logits(labels, context.classes))
    context.progress.advance(f"as it came, accuracy {value:.3f}", epochs)
    return _packed(_copy(network), [(float(loss), value)], 0)


def _packed(state: State, curve: Curve, kept: int) -> tuple[Arrays, Header]:
    """A member as a part of the checkpoint: the kept state, the curve, and the kept epoch."""
    return to_arrays(state), {"curve": curve, "kept": kept, "order": list(state)}


def _copy(network: nn.Module) -> State:
    rounded = network if isinstance(network, RoundedNetwork) else None
    state = network.state_dict() if rounded is None else rounded.rounded_state()
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _settings(table: CommitteeTable, spec: str) -> TrainSettings:
    own = table.training(spec)
    return TrainSettings(
        own.epochs,
        own.lr,
        own.optimizer,
        weight_decay=own.weight_decay,
        precision=own.precision,
        compiled=table.compile == "on",
    )


def committee_units(units: Units, table: CommitteeTable) -> list[Task[Unit]]:
    """Every member is trained by itself, and tested after each epoch."""
    shape = units.shape
    tasks = []
    for spec in table.members:
        own = table.training(spec)
        if comes_whole(table, spec):
            tasks.append(Task(1, (units.predictions(spec, shape.validation),), mapped=True))
            continue
        batch = min(own.batch_size, shape.train)
        step = units.training_step(spec, batch, own.augmentation, _settings(table, spec))
        steps = Part(own.epochs * step_count(shape.train, batch), step)
        tested = units.predictions(spec, shape.validation, own.epochs)
        tasks.append(Task(1, (steps, tested), mapped=True))
    return tasks


STAGE = Stage(
    STAGE_ENTRIES["committee"],
    run_committee,
    output_file(COMMITTEE),
    committee_units,
    splits=("train", "validation"),
    derived=weights_digests,
    ignored=VOTE_KEYS,
)
