"""Train the committee of teachers, and read it back ready to vote."""

from __future__ import annotations

from distill.build import build_views
from distill.context import Context
from distill.errors import WorkError
from distill.progress import Advance
from distill.stages.tensors import load_tensors, save_tensors
from distill.store.committee import Member, read_committee, write_committee
from distill.tables import CommitteeTable
from synth.committee import Committee, vote_weights
from synth.losses import hard_logits
from synth.training import TrainSettings, accuracy, shuffled_batches, train

STAGE = "committee"
FILE = "committee.h5"


def run_committee(context: Context) -> None:
    """Make committee.h5; a finished member is not trained again after an interruption."""
    table = _table(context)
    folder = context.checkpoint(STAGE)
    context.run.keep_metrics(STAGE)
    members = []
    with context.progress.task(STAGE, len(table.members) * table.epochs) as advance:
        for index, spec in enumerate(table.members):
            path = folder / f"{index:04d}.safetensors"
            found = load_tensors(path)
            if found is None:
                state, curve = _train_member(context, index, spec, advance)
                save_tensors(path, state, {"curve": curve, "order": list(state)})
            else:
                state, curve = found[0], found[1]["curve"]
                state = {name: state[name] for name in found[1]["order"]}
                advance(count=table.epochs)
            for epoch, (loss, value) in enumerate(curve, start=1):
                context.log(STAGE, member=spec, epoch=epoch, loss=loss, accuracy=value)
            members.append(Member(spec, curve[-1][1], state))
    for member in members:
        _refuse_chance(member, context.classes)
    path = context.run.path / FILE
    write_committee(path, members, context.data.digest, context.data.class_names)


def load_committee(context: Context, only: str | None = None) -> Committee:
    """The committee of this run with the votes of its recipe, or one member alone.

    Raises:
        WorkError: if it was trained on other data or classes, or has no such member.
    """
    table = _table(context)
    path = context.run.path / FILE
    members, data, class_names = read_committee(path)
    if data != context.data.digest or class_names != list(context.data.class_names):
        raise WorkError(f"{path} was trained on other data or classes; run the stage committee")
    if only is not None:
        members = [member for member in members if member.spec == only]
        if not members:
            raise WorkError(f"{path} has no member {only}; name one of committee.members")
    networks = []
    for index, member in enumerate(members):
        network = context.network(member.spec, STAGE, index)
        network.load_state_dict(member.state)
        networks.append(network.eval().requires_grad_(False))
    weights = vote_weights(
        table.vote, [member.accuracy for member in members], table.vote_temperature
    )
    return Committee(tuple(networks), weights)


def _table(context: Context) -> CommitteeTable:
    if context.recipe.committee is None:
        raise WorkError("the recipe has no [committee] table; add one with its members")
    return context.recipe.committee


def _train_member(
    context: Context, index: int, spec: str, advance: Advance
) -> tuple[dict, list[tuple[float, float]]]:
    table = _table(context)
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    network = context.network(spec, STAGE, index)
    generator = context.generator(STAGE, index)
    views = build_views(table.augmentation, one_per_batch=False)
    soft = hard_logits(labels, context.classes)
    settings = TrainSettings(table.epochs, table.lr, "adamw", weight_decay=table.weight_decay)
    epochs = train(
        network,
        lambda epoch: shuffled_batches(images, soft, table.batch_size, views, generator),
        settings,
    )
    curve = []
    with context.threads(table.batch_size, network):
        for epoch in epochs:
            context.stop.check()
            curve.append((epoch.loss, accuracy(network, held_images, held_labels)))
            advance(f"{spec}, loss {epoch.loss:.3f}, accuracy {curve[-1][1]:.3f}")
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}, curve


def _refuse_chance(member: Member, classes: int) -> None:
    """A member that has learned nothing must not vote: its labels would be noise."""
    if member.accuracy < 2 / classes and classes > 2:
        raise WorkError(
            f"committee member {member.spec} has held-out accuracy {member.accuracy:.3f}, near "
            f"the chance of {1 / classes:.3f}; raise committee.epochs or choose another network"
        )
