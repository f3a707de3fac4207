"""The scores that weigh committee members' votes: priors and similarities.

A measured prior costs a short training, so votes.json keeps it: {digest: score}, where the
digest covers the member's weights, the data, the seed and every key that decides the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.errors import WorkError
from distill.names import choices, resolve
from distill.recipes.build import build_views
from distill.recipes.tables.committee import CommitteeTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import VOTES
from distill.run.context import Context
from distill.store.committee import Member
from distill.store.documents import read_json
from distill.store.files import digest_bytes, digest_json, write_json
from distill.store.seals import fits, sealed, unsealed
from synth.augment import Augmentation
from synth.committee.features import head_inputs
from synth.committee.relabel import labelled_online
from synth.committee.similarity import parc
from synth.committee.vote import Committee
from synth.committee.weights import VoteWeighting
from synth.images import Images
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy

_MEASURED_LR = 0.002


def make_weighting(
    context: Context,
    table: CommitteeTable,
    members: Sequence[Member],
    networks: Sequence[nn.Module],
) -> VoteWeighting:
    """The recipe's vote weighting, with a score for each member.

    Args:
        context: data, seeds, and the run that keeps measured scores.
        table: the rule and its keys.
        members: of committee.h5.
        networks: of the same members, frozen.
    """
    weighting: VoteWeighting = resolve(choices("committee.vote")[table.vote])(
        context, table, members, networks
    )
    return weighting


def prior_weighting(
    context: Context,
    table: CommitteeTable,
    members: Sequence[Member],
    networks: Sequence[nn.Module],
) -> VoteWeighting:
    """The members' held-out accuracies, or committee.priors. Source: CV-DD."""
    if table.priors is not None:
        return VoteWeighting("prior", tuple(percent / 100 for percent in table.priors))
    return VoteWeighting("prior", _accuracies(members))


def measured_weighting(
    context: Context,
    table: CommitteeTable,
    members: Sequence[Member],
    networks: Sequence[nn.Module],
) -> VoteWeighting:
    """The accuracies of students that each member taught alone. Source: CV-DD."""
    return VoteWeighting("measured", _measured(context, table, members, networks))


def equal_weighting(
    context: Context,
    table: CommitteeTable,
    members: Sequence[Member],
    networks: Sequence[nn.Module],
) -> VoteWeighting:
    """Every member weighs the same."""
    return VoteWeighting("equal", _accuracies(members))


def random_weighting(
    context: Context,
    table: CommitteeTable,
    members: Sequence[Member],
    networks: Sequence[nn.Module],
) -> VoteWeighting:
    """Random weights. Source: CV-DD."""
    return VoteWeighting("random", _accuracies(members))


def similarity_weighting(
    context: Context,
    table: CommitteeTable,
    members: Sequence[Member],
    networks: Sequence[nn.Module],
) -> VoteWeighting:
    """Weights by how well each member's features suit this task. Source: Borup et al. 2023."""
    power = math.inf if table.similarity_power == "nearest" else table.similarity_power
    return VoteWeighting("similarity", _similarities(context, table, networks), power)


def _accuracies(members: Sequence[Member]) -> tuple[float, ...]:
    return tuple(member.accuracy for member in members)


def _similarities(
    context: Context, table: CommitteeTable, networks: Sequence[nn.Module]
) -> tuple[float, ...]:
    """PARC of each member's features on held-out images."""
    images, labels = context.split("validation")
    order = torch.randperm(len(images), generator=context.generator("vote", "probe"))
    chosen = order[: table.similarity_images].to(images.device)
    probe, classes = images[chosen], labels[chosen]
    try:
        return tuple(
            parc(head_inputs(network, probe), classes, context.classes) for network in networks
        )
    except ValueError as error:
        raise WorkError(
            f"committee.vote is similarity: {error}; choose another vote, or raise data.validation"
        ) from None


def _measured(
    context: Context,
    table: CommitteeTable,
    members: Sequence[Member],
    networks: Sequence[nn.Module],
) -> tuple[float, ...]:
    """Held-out accuracy of students of each member alone, read from votes.json or measured."""
    path = context.run.path / VOTES
    known = _read(path)
    digests = [_digest(context, table, member) for member in members]
    missing = [place for place, digest in enumerate(digests) if digest not in known]
    if missing:
        with context.progress.task("vote", len(missing)) as advance:
            for place in missing:
                score = _distil_alone(context, table, networks[place])
                known[digests[place]] = score
                write_json(path, sealed(known))
                advance(f"{members[place].spec} alone: {score:.3f}")
    return tuple(known[digest] for digest in digests)


def _distil_alone(context: Context, table: CommitteeTable, network: nn.Module) -> float:
    """Mean accuracy on the validation split of students of one member, a fraction.

    A distillation by selection: the same random real images for every member, its soft labels
    for every view of them, and a fresh student. CV-DD's own constants are accuracies of such
    students, but measured on the test set.
    """
    accuracies = [
        _student_accuracy(context, table, network, seed) for seed in range(table.measure_seeds)
    ]
    return sum(accuracies) / len(accuracies)


def _student_accuracy(
    context: Context, table: CommitteeTable, network: nn.Module, seed: int
) -> float:
    generator = context.generator("vote", "measured", seed)
    selected, _ = context.random_real(table.measure_ipc, generator)
    teacher = Committee((network,), torch.ones(1))
    relabel = context.recipe.relabel or RelabelTable()
    views = build_views(relabel.augmentation, one_per_batch=False) or Augmentation(())
    batch = _batch_size(selected)
    settings = TrainSettings(
        table.measure_epochs,
        _MEASURED_LR,
        "adamw",
        weight_decay=0.01,
        temperature=relabel.temperature,
    )
    student = context.network(table.measure_student, "vote", seed)
    epochs = train(
        student,
        lambda epoch: labelled_online(selected, teacher.vote, batch, views, generator),
        settings,
    )
    with context.threads(batch, student, network):
        for _ in epochs:
            context.stop.check()
    return accuracy(student, *context.split("validation"))


def _batch_size(images: Images) -> int:
    """About ten steps an epoch, in batches that are neither tiny nor large."""
    return min(100, max(10, len(images) // 10))


def _digest(context: Context, table: CommitteeTable, member: Member) -> str:
    """Digest of all that decides a measured prior."""
    relabel = context.recipe.relabel or RelabelTable()
    weights = [
        digest_bytes(tensor.cpu().contiguous().numpy().tobytes())
        for tensor in member.state.values()
    ]
    return digest_json(
        {
            "member": member.spec,
            "weights": weights,
            "data": context.data.digest,
            "preprocess": context.recipe.data.model_dump(mode="json"),
            "seed": context.recipe.seed,
            "student": table.measure_student,
            "ipc": table.measure_ipc,
            "epochs": table.measure_epochs,
            "seeds": table.measure_seeds,
            "views": relabel.augmentation,
            "temperature": relabel.temperature,
        }
    )


def _read(path: Path) -> dict[str, float]:
    """The scores in votes.json by digest; empty where it is missing or damaged."""
    try:
        raw: Any = read_json(path)
        scores = {} if fits(raw) is False else unsealed(raw)
        return {str(digest): float(score) for digest, score in scores.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
