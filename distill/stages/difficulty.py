"""How difficult real images are for the experts of a run: the methods of select that read them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.recipes.schema import scored_epochs
from distill.recipes.tables.select import SelectTable
from distill.run.artefacts import EXPERTS
from distill.run.context import Context
from distill.stages.match.start import MatchStart
from distill.stages.units.networks import Units
from distill.stages.units.unit import Task, Unit
from distill.store.experts import read_info
from distill.teachers.expert_looks import expert_looks
from synth.selection import by_difficulty, choose_per_class, el2n, forgetting_counts
from synth.training.prediction import predict, predict_classes


def el2n_scores(context: Context, table: SelectTable) -> Tensor:
    """Mean EL2N [m] of the train split over the experts at select.scored_epoch; on the CPU.

    Source: Paul et al. 2021.
    """
    return _el2n_at(context, table.scored_epoch)


def forgetting_scores(context: Context, table: SelectTable) -> Tensor:
    """Mean forgetting count [m] of the train split over the experts; on the CPU.

    A look is at the end of an epoch, without augmentation. Source: Toneva et al. 2019.
    """
    images, labels = context.split("train")

    def right(network: nn.Module) -> Tensor:
        return (predict_classes(network, images) == labels).cpu()

    epochs = scored_epochs(context.recipe)
    counts = [forgetting_counts(looks) for looks in expert_looks(context, epochs, right)]
    return torch.stack(counts).float().mean(dim=0)


def start_easy(start: MatchStart) -> Tensor:
    """Real images that finished experts find easiest, by EL2N: a value of match.init.

    Source: after Wang et al. 2024 (SDC), who find that easy images suit few images per class.
    """
    labels = start.context.split("train")[1].cpu()
    scores = _el2n_at(start.context, read_info(start.context.run.path / EXPERTS).epochs)
    chosen = choose_per_class(
        scores,
        labels,
        start.context.classes,
        start.seen_per_class,
        lambda own, count: by_difficulty(own, count, "easy", start.generator),
    )
    return start.draw(chosen)


def difficulty_units(units: Units, table: SelectTable) -> list[Task[Unit]]:
    """Every expert looks at all real images, at each epoch that is scored."""
    experts = units.recipe.table("experts")
    looks = len(scored_epochs(units.recipe))
    return [Task(experts.count, (units.predictions(experts.network, units.shape.train, looks),))]


def _el2n_at(context: Context, epoch: int) -> Tensor:
    images, labels = context.split("train")

    def score(network: nn.Module) -> Tensor:
        return el2n(predict(network, images), labels).cpu()

    scores = [next(looks) for looks in expert_looks(context, (epoch,), score)]
    return torch.stack(scores).mean(dim=0)
