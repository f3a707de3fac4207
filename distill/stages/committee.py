"""Train the committee of teachers, and read it back ready to vote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from distill.errors import WorkError
from distill.recipes.build import build_views, is_torchvision
from distill.recipes.stages import STAGES
from distill.recipes.tables.committee import VOTE_KEYS, CommitteeTable
from distill.run.artefacts import COMMITTEE, COMMITTEE_STAGE
from distill.run.context import Context, RunHandle, handle_of, no_advance, open_context
from distill.run.engines import in_turn
from distill.run.progress import Advance
from distill.stages.stage import Stage, output_file
from distill.stages.units.networks import Units
from distill.stages.units.unit import Part, Task, Unit, batches_of
from distill.store.committee import Member, write_committee
from distill.store.tensors import from_arrays, load_tensors, save_tensors, to_arrays
from distill.teachers.loading import committee_table
from distill.teachers.pretrained import load_pretrained, weights_digests
from synth.images import HardLogits
from synth.losses import hard_logits, soft_cross_entropy
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, accuracy, predict, train

State = dict[str, Tensor]

# Loss and held-out accuracy of each epoch.
Curve = list[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Trained:
    """What one training gives: the state of the epoch that is kept, the curve, and that epoch."""

    state: dict[str, np.ndarray]
    curve: Curve
    kept: int


def run_committee(context: Context) -> None:
    """Make committee.h5; a finished member is not trained again after an interruption."""
    table = committee_table(context)
    folder = context.checkpoint(COMMITTEE_STAGE)
    context.run.keep_metrics(COMMITTEE_STAGE)
    members = []
    total = sum(table.training(spec).epochs for spec in table.members)
    with context.progress.task(COMMITTEE_STAGE, total) as advance:
        for index, member in in_turn(_members(context, folder, advance)):
            spec = table.members[index]
            for epoch, (loss, value) in enumerate(member.curve, start=1):
                context.log(COMMITTEE_STAGE, member=spec, epoch=epoch, loss=loss, accuracy=value)
            best = member.curve[member.kept - 1][1]
            members.append(Member(spec, best, from_arrays(member.state), member.kept))
    for trained in members:
        _refuse_chance(trained, context.classes)
    path = context.run.path / COMMITTEE
    write_committee(path, members, context.data.digest, context.data.class_names)


def open_training(opening: RunHandle) -> Callable[[int], Trained]:
    """What trains the member of a number, in another process."""
    return partial(_train_member, open_context(opening), no_advance)


def _members(context: Context, folder: Path, advance: Advance) -> Iterator[tuple[int, Trained]]:
    """Every member with its number, as they are found or trained, and kept."""
    table = committee_table(context)
    missing = []
    for index, spec in enumerate(table.members):
        found = load_tensors(folder / f"{index:04d}.safetensors")
        if found is None:
            missing.append(index)
        else:
            advance(count=table.training(spec).epochs)
            state = {name: found[0][name] for name in found[1]["order"]}
            yield index, Trained(to_arrays(state), found[1]["curve"], found[1]["kept"])
    here, away = (
        partial(_train_member, context, advance),
        partial(open_training, handle_of(context)),
    )
    for index, member in context.share(missing, lambda: here, away):
        header = {"curve": member.curve, "kept": member.kept, "order": list(member.state)}
        save_tensors(folder / f"{index:04d}.safetensors", from_arrays(member.state), header)
        if not context.engine.here:
            spec = table.members[index]
            advance(f"{spec}, accuracy {member.curve[-1][1]:.3f}", table.training(spec).epochs)
        yield index, member


def _train_member(context: Context, advance: Advance, index: int) -> Trained:
    """Train one member.

    Without patience the last epoch is kept. With it, the one that was best on the validation
    split, and the training ends when `patience` epochs brought nothing better: an overconfident
    teacher makes worse labels. A model of torchvision starts from its published weights; where
    their head is of as many classes as the data, it is not trained.
    """
    spec = committee_table(context).members[index]
    table = committee_table(context).training(spec)
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    network = context.network(spec, COMMITTEE_STAGE, index)
    if is_torchvision(spec) and load_pretrained(context, spec, table.weights, network):
        return _as_it_is(context, advance, network, table.epochs)
    generator = context.generator(COMMITTEE_STAGE, index)
    views = build_views(table.augmentation, one_per_batch=False)
    soft = HardLogits(labels, context.classes)
    epochs = train(
        network,
        lambda epoch: shuffled_batches(images, soft, table.batch_size, views, generator),
        _settings(committee_table(context), spec),
    )
    curve: Curve = []
    state: State = {}
    kept = 0
    with context.threads(table.batch_size, network):
        for epoch in epochs:
            context.stop.check()
            curve.append((epoch.loss, accuracy(network, held_images, held_labels)))
            advance(f"{spec}, loss {epoch.loss:.3f}, accuracy {curve[-1][1]:.3f}")
            if table.patience is None or not kept or curve[-1][1] > curve[kept - 1][1]:
                state, kept = _copy(network), epoch.index
            elif epoch.index - kept >= table.patience:
                advance(count=table.epochs - epoch.index)
                break
    return Trained(to_arrays(state), curve, kept)


def _as_it_is(context: Context, advance: Advance, network: nn.Module, epochs: int) -> Trained:
    """A member that came with all of its weights: measured, and not trained."""
    images, labels = context.split("validation")
    value = accuracy(network, images, labels)
    loss = soft_cross_entropy(predict(network, images), hard_logits(labels, context.classes))
    advance(f"as it came, accuracy {value:.3f}", epochs)
    return Trained(to_arrays(_copy(network)), [(float(loss), value)], 0)


def _copy(network: nn.Module) -> State:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _refuse_chance(member: Member, classes: int) -> None:
    """A member that has learned nothing must not vote: its labels would be noise."""
    if member.accuracy < 2 / classes and classes > 2:
        remedy = "raise committee.epochs or choose another network"
        if is_torchvision(member.spec) and not member.epoch:
            remedy = "its weights may be of other classes, or of the same in another order"
        raise WorkError(
            f"committee member {member.spec} has held-out accuracy {member.accuracy:.3f}, near "
            f"the chance of {1 / classes:.3f}; {remedy}"
        )


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
        batch = min(own.batch_size, shape.train)
        step = units.training_step(spec, batch, own.augmentation, _settings(table, spec))
        steps = Part(own.epochs * batches_of(shape.train, batch), step)
        tasks.append(Task(1, (steps, units.predictions(spec, shape.validation, own.epochs))))
    return tasks


STAGE = Stage(
    STAGES["committee"],
    run_committee,
    output_file(COMMITTEE),
    committee_units,
    splits=("train", "validation"),
    derived=weights_digests,
    ignored=VOTE_KEYS,
)
