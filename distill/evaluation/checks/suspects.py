"""Labels that the networks of a run contradict."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.errors import WorkError
from distill.recipes.build import with_place
from distill.recipes.loading import check_recipe
from distill.recipes.schema import Recipe
from distill.run.artefacts import COMMITTEE, EXPERTS, MANIFEST
from distill.run.context import Context
from distill.run.interrupt import listen
from distill.run.manifest import read_manifest
from distill.run.scratch import scratch_context
from distill.store.experts import read_info
from distill.teachers.expert_looks import expert_looks
from distill.teachers.loading import has_committee, load_committee
from synth.selection import confident_errors
from synth.training.prediction import predict

_PARTS = ("train", "validation", "test")

# Of an expert's epochs so many are asked, spread over its training: the early ones have not yet
# learned wrong labels by heart.
_EPOCHS = 5


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely wrong.

    Attributes:
        part: "train", "validation" or "test".
        number: of the image there.
        label: its class.
        own: probability of that class.
        suggested: the class that networks take it for.
        other: probability of that one.
    """

    part: str
    number: int
    label: int
    own: float
    suggested: int
    other: float


@dataclass(frozen=True)
class Suspects:
    """Likely label errors, the most evident first.

    Attributes:
        networks: who was asked, in words.
        found: of all parts.
    """

    networks: str
    found: tuple[Suspect, ...]


def recipe_of(run: Path, place: str | None) -> Recipe:
    """The recipe of a run, with its data at another place if one is named.

    Raises:
        WorkError: if the folder is no run.
    """
    manifest = read_manifest(run / MANIFEST)
    return with_place(check_recipe(manifest["recipe"], f"recipe of {run}"), place, run)


def find_suspects(run: Path, recipe: Recipe, device: str | None, *, quiet: bool) -> Suspects:
    """Ask the experts of a run, or its committee, for every image of its data.

    An expert's probabilities are means over up to five of its epochs. Parts are judged one by one,
    see `confident_errors`.

    Args:
        run: its folder.
        recipe: of it, whose [data] names the images.
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.

    Raises:
        WorkError: if the run has neither, or they were trained on other data.
    """
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = scratch_context(Path(scratch), run, recipe, device, quiet, stop)
        if (run / EXPERTS).is_file():
            (Path(scratch) / EXPERTS).symlink_to((run / EXPERTS).resolve())
            networks, probabilities = _of_experts(context)
        elif has_committee(context):
            networks, probabilities = _of_committee(context)
        else:
            raise WorkError(
                f"{run} has neither {EXPERTS} nor {COMMITTEE}; run the stage experts or committee"
            )
        found = [
            suspect
            for part in _PARTS
            for suspect in _judged(part, probabilities[part], context.split(part)[1].cpu())
        ]
    return Suspects(networks, tuple(sorted(found, key=lambda one: one.own - one.other)))


def _judged(part: str, probabilities: Tensor, labels: Tensor) -> list[Suspect]:
    errors = confident_errors(probabilities, labels)
    rows = zip(errors.indices, errors.own, errors.suggested, errors.other, strict=True)
    return [
        Suspect(part, int(index), int(labels[index]), float(own), int(suggested), float(other))
        for index, own, suggested, other in rows
    ]


def _of_experts(context: Context) -> tuple[str, dict[str, Tensor]]:
    info = read_info(context.run.path / EXPERTS)
    if info.data != context.data.digest:
        raise WorkError(
            f"the experts were trained on other data than {context.data.source} holds now; name "
            "the data of their run"
        )
    trained = [epoch for epoch in info.kept if epoch > 0] or [info.epochs]
    places = torch.linspace(0, len(trained) - 1, min(_EPOCHS, len(trained))).round().long()
    epochs = [trained[place] for place in places.tolist()]

    def all_parts(network: nn.Module) -> Tensor:
        with context.threads(1000, network):
            return torch.cat(
                [predict(network, context.split(part)[0]).softmax(dim=1).cpu() for part in _PARTS]
            )

    experts = len(info.networks[0].experts)
    total = torch.zeros(())
    with context.progress.task("label errors", experts * len(epochs)) as advance:
        for looks in expert_looks(context, epochs, all_parts):
            for found in looks:
                total = total + found / (experts * len(epochs))
                advance()
    sizes = [len(context.split(part)[1]) for part in _PARTS]
    words = f"{experts} experts {info.network}, after epochs {', '.join(map(str, epochs))}"
    return words, dict(zip(_PARTS, total.split(sizes), strict=True))


def _of_committee(context: Context) -> tuple[str, dict[str, Tensor]]:
    committee = load_committee(context)
    with context.threads(1000, *committee.members):
        found = {
            part: predict(committee.vote, context.split(part)[0]).softmax(dim=1).cpu()
            for part in _PARTS
        }
    return f"the vote of {len(committee.members)} teachers", found
