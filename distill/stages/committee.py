"""Train the committee of teachers, and read it back ready to vote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from distill.build import build_views, is_torchvision
from distill.context import Context
from distill.engines import in_turn
from distill.errors import WorkError
from distill.opening import Opening, no_advance, open_context, opening_of
from distill.progress import Advance
from distill.stages.pretrained import load_pretrained
from distill.stages.tensors import from_arrays, load_tensors, save_tensors, to_arrays
from distill.stages.votes import make_ballot
from distill.store.committee import Member, read_committee, write_committee
from distill.tables import CommitteeTable
from synth.batches import shuffled_batches
from synth.committee import Committee
from synth.images import HardLogits
from synth.losses import hard_logits, soft_cross_entropy
from synth.training import TrainSettings, accuracy, predict, train
from synth.votes import Ballot

STAGE = "committee"
FILE = "committee.h5"
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
    table = _table(context)
    folder = context.checkpoint(STAGE)
    context.run.keep_metrics(STAGE)
    members = []
    total = sum(table.training(spec).epochs for spec in table.members)
    with context.progress.task(STAGE, total) as advance:
        for index, member in in_turn(_members(context, folder, advance)):
            spec = table.members[index]
            for epoch, (loss, value) in enumerate(member.curve, start=1):
                context.log(STAGE, member=spec, epoch=epoch, loss=loss, accuracy=value)
            best = member.curve[member.kept - 1][1]
            members.append(Member(spec, best, from_arrays(member.state), member.kept))
    for trained in members:
        _refuse_chance(trained, context.classes)
    path = context.run.path / FILE
    write_committee(path, members, context.data.digest, context.data.class_names)


def open_training(opening: Opening) -> Callable[[int], Trained]:
    """What trains the member of a number, in another process."""
    return partial(_train_member, open_context(opening), no_advance)


def _members(context: Context, folder: Path, advance: Advance) -> Iterator[tuple[int, Trained]]:
    """Every member with its number, as they are found or trained, and kept."""
    table = _table(context)
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
        partial(open_training, opening_of(context)),
    )
    for index, member in context.share(missing, lambda: here, away):
        header = {"curve": member.curve, "kept": member.kept, "order": list(member.state)}
        save_tensors(folder / f"{index:04d}.safetensors", from_arrays(member.state), header)
        if not context.engine.here:
            spec = table.members[index]
            advance(f"{spec}, accuracy {member.curve[-1][1]:.3f}", table.training(spec).epochs)
        yield index, member


def has_committee(context: Context) -> bool:
    """Whether this run has a committee."""
    return context.recipe.committee is not None and (context.run.path / FILE).is_file()


def load_committee(context: Context, only: str | None = None) -> Committee:
    """The committee of this run with the votes of its recipe, or one member alone.

    Raises:
        WorkError: if it was trained on other data or classes, or has no such member.
    """
    members = _read_members(context)
    if only is not None:
        members = [member for member in members if member.spec == only]
        if not members:
            raise WorkError(
                f"{context.run.path / FILE} has no member {only}; name one of committee.members"
            )
        return Committee(_networks(context, members), torch.full((len(members),), 1 / len(members)))
    networks, ballot = load_members(context)
    weights = ballot.weights(_table(context).vote_temperature, context.generator("vote"))
    return Committee(networks, weights)


def load_networks(context: Context) -> tuple[nn.Module, ...]:
    """The members of this run in the order of the recipe, frozen.

    Raises:
        WorkError: if they were trained on other data or classes.
    """
    return _networks(context, _read_members(context))


def load_members(context: Context) -> tuple[tuple[nn.Module, ...], Ballot]:
    """The members of this run in the order of the recipe, frozen, and how they may be weighed.

    Raises:
        WorkError: if they were trained on other data or classes.
    """
    members = _read_members(context)
    networks = _networks(context, members)
    return networks, make_ballot(context, _table(context), members, networks)


def _table(context: Context) -> CommitteeTable:
    if context.recipe.committee is None:
        raise WorkError("the recipe has no [committee] table; add one with its members")
    return context.recipe.committee


def _read_members(context: Context) -> list[Member]:
    path = context.run.path / FILE
    members, data, class_names = read_committee(path)
    if data != context.data.digest or class_names != list(context.data.class_names):
        raise WorkError(f"{path} was trained on other data or classes; run the stage committee")
    specs = [member.spec for member in members]
    if specs != _table(context).members:
        raise WorkError(
            f"{path} holds the members {', '.join(specs)}, but committee.members is "
            f"{', '.join(_table(context).members)}; run the stage committee"
        )
    return members


def _networks(context: Context, members: list[Member]) -> tuple[nn.Module, ...]:
    networks = []
    for index, member in enumerate(members):
        network = context.network(member.spec, STAGE, index)
        try:
            network.load_state_dict(member.state)
        except (RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WorkError(
                f"{context.run.path / FILE}: member {member.spec} does not fit its network "
                f"({reason}); run the stage committee again"
            ) from None
        networks.append(network.eval().requires_grad_(False))
    return tuple(networks)


def _train_member(context: Context, advance: Advance, index: int) -> Trained:
    """Train one member.

    Without patience the last epoch is kept. With it, the one that was best on the validation
    split, and the training ends when `patience` epochs brought nothing better: an overconfident
    teacher makes worse labels. A model of torchvision starts from its published weights; where
    their head is of as many classes as the data, it is not trained.
    """
    spec = _table(context).members[index]
    table = _table(context).training(spec)
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    network = context.network(spec, STAGE, index)
    if is_torchvision(spec) and load_pretrained(context, spec, table.weights, network):
        return _as_it_is(context, advance, network, table.epochs)
    generator = context.generator(STAGE, index)
    views = build_views(table.augmentation, one_per_batch=False)
    soft = HardLogits(labels, context.classes)
    settings = TrainSettings(
        table.epochs,
        table.lr,
        table.optimizer,
        weight_decay=table.weight_decay,
        precision=table.precision,
    )
    epochs = train(
        network,
        lambda epoch: shuffled_batches(images, soft, table.batch_size, views, generator),
        settings,
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
