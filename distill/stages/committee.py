"""Train the committee of teachers, and read it back ready to vote."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.build import build_views
from distill.context import Context
from distill.errors import WorkError
from distill.progress import Advance
from distill.stages.tensors import load_tensors, save_tensors
from distill.stages.votes import make_ballot
from distill.store.committee import Member, read_committee, write_committee
from distill.tables import CommitteeTable
from synth.committee import Committee
from synth.losses import hard_logits
from synth.training import TrainSettings, accuracy, shuffled_batches, train
from synth.votes import Ballot

STAGE = "committee"
FILE = "committee.h5"
State = dict[str, Tensor]
# Loss and held-out accuracy of each epoch.
Curve = list[tuple[float, float]]


def run_committee(context: Context) -> None:
    """Make committee.h5; a finished member is not trained again after an interruption."""
    table = _table(context)
    folder = context.checkpoint(STAGE)
    context.run.keep_metrics(STAGE)
    members = []
    total = sum(table.training(spec).epochs for spec in table.members)
    with context.progress.task(STAGE, total) as advance:
        for index, spec in enumerate(table.members):
            path = folder / f"{index:04d}.safetensors"
            found = load_tensors(path)
            if found is None:
                state, curve, kept = _train_member(context, index, spec, advance)
                save_tensors(path, state, {"curve": curve, "kept": kept, "order": list(state)})
            else:
                curve, kept = found[1]["curve"], found[1]["kept"]
                state = {name: found[0][name] for name in found[1]["order"]}
                advance(count=table.training(spec).epochs)
            for epoch, (loss, value) in enumerate(curve, start=1):
                context.log(STAGE, member=spec, epoch=epoch, loss=loss, accuracy=value)
            members.append(Member(spec, curve[kept - 1][1], state, kept))
    for member in members:
        _refuse_chance(member, context.classes)
    path = context.run.path / FILE
    write_committee(path, members, context.data.digest, context.data.class_names)


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


def _train_member(
    context: Context, index: int, spec: str, advance: Advance
) -> tuple[State, Curve, int]:
    """Train one member; returns the state of the epoch that is kept, the curve, and that epoch.

    Without patience the last epoch is kept. With it, the one that was best on the validation
    split, and the training ends when `patience` epochs brought nothing better: an overconfident
    teacher makes worse labels.
    """
    table = _table(context).training(spec)
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    network = context.network(spec, STAGE, index)
    generator = context.generator(STAGE, index)
    views = build_views(table.augmentation, one_per_batch=False)
    soft = hard_logits(labels, context.classes)
    settings = TrainSettings(
        table.epochs, table.lr, table.optimizer, weight_decay=table.weight_decay
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
    return state, curve, kept


def _copy(network: nn.Module) -> State:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _refuse_chance(member: Member, classes: int) -> None:
    """A member that has learned nothing must not vote: its labels would be noise."""
    if member.accuracy < 2 / classes and classes > 2:
        raise WorkError(
            f"committee member {member.spec} has held-out accuracy {member.accuracy:.3f}, near "
            f"the chance of {1 / classes:.3f}; raise committee.epochs or choose another network"
        )
