"""Active labelling: which views the committee labels under a budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.recipes.build import build_views
from distill.recipes.tables.relabel import RelabelTable
from distill.run.context import Context
from synth.augment import Augmentation, View
from synth.committee.strategies import draw_included, margin_gains, max_min_weights
from synth.committee.strategies.stored import aggregated_vote
from synth.committee.vote import Committee
from synth.losses import hard_logits
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.prediction import predict, predict_classes

_LR = 0.002

Drawn = tuple[Tensor, View]


def choose_views(
    context: Context, committee: Committee, images: Tensor, hard: Tensor, drawn: Sequence[Drawn]
) -> Tensor:
    """Which of the views drawn for each epoch the committee labels, [e, n] bool.

    Robust selection (Baykal et al. 2023): a student trained on hard labels gives the
    margin of each view, and the committee's held-out error rate gives how many of its labels the
    adversary may corrupt.

    Args:
        context: of a run with a table [relabel] whose key `active` is not "none".
        committee: of teachers.
        images: [n, c, h, w] that students see.
        hard: [n] their classes.
        drawn: order [n] and view of each epoch.
    """
    table = context.recipe.relabel or RelabelTable()
    count = len(drawn) * len(images)
    budget = max(1, round(table.budget * count))
    if table.active == "random":
        weights, mistakes = torch.full((count,), 1 / count), 0
    else:
        gains = _gains(_student(context, table, images, hard), images, drawn)
        mistakes = min(round(count * _error_rate(context, table, committee)), count - 1)
        weights = max_min_weights(gains, mistakes)
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[draw_included(weights, budget, context.generator("relabel", "active"))] = True
    context.log("relabel", active=table.active, mistakes=mistakes, chosen=int(chosen.sum()))
    return chosen.view(len(drawn), len(images))


def _student(context: Context, table: RelabelTable, images: Tensor, hard: Tensor) -> nn.Module:
    """A student trained on the set's hard labels."""
    student = context.network(table.active_student, "relabel", "active")
    generator = context.generator("relabel", "active student")
    views = build_views(table.augmentation, one_per_batch=False) or Augmentation(())
    soft = hard_logits(hard, context.classes)
    batch = min(100, max(2, len(images) // 10))
    settings = TrainSettings(table.active_epochs, _LR, "adamw", weight_decay=0.01)
    with context.threads(batch, student):
        for _ in train(
            student, lambda epoch: shuffled_batches(images, soft, batch, views, generator), settings
        ):
            context.stop.check()
    return student.eval()


def _gains(student: nn.Module, images: Tensor, drawn: Sequence[Drawn]) -> Tensor:
    """The gain of labelling each view, from the student's margins, [e * n]."""
    gains = []
    for ids, view in drawn:
        seen = view.apply(images[ids.to(images.device)])
        gains.append(margin_gains(predict(student, seen)).cpu())
    return torch.cat(gains)


def _error_rate(context: Context, table: RelabelTable, committee: Committee) -> float:
    """Error rate of the committee's labels on the validation split."""
    images, labels = context.split("validation")

    def vote(batch: Tensor) -> Tensor:
        return aggregated_vote(committee, batch, table.aggregate, False)

    predicted = predict_classes(vote, images)
    return float((predicted != labels).float().mean())
