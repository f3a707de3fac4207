"""match.student_lr = "auto": the rate that matching begins with, found from the experts."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from distill.recipes.build import build_views
from distill.recipes.tables.experts import ExpertsTable
from distill.recipes.tables.match import MatchTable
from distill.run.artefacts import MATCH_STAGE
from distill.run.context import Context
from distill.run.load import step_count
from distill.stages.match.problem import match_problem
from synth.images import images_at
from synth.losses import hard_logits
from synth.matching.inner_loop import draw_batches, make_inner_loop
from synth.matching.mean_gradient import MatchProblem, step_labels
from synth.matching.segments import SegmentChoice
from synth.matching.start_rate import (
    Piece,
    bearable_rate,
    expected_rate,
    following_rate,
    mean_distance,
)

# Segments of each network that a rate is tried on.
SEGMENTS = 3

# Of real images, below which their gradients are mostly noise.
SMALLEST_BATCH = 32

# About how many rates are tried on real images, and as many on the set: for plans.
USUAL_TRIES = 4


def starting_rates(
    context: Context, table: MatchTable, stored: Tensor, labels: Tensor
) -> list[float]:
    """A student learning rate for each network whose experts are matched.

    Args:
        context: of a run with experts.h5.
        table: [match] of its recipe.
        stored: what is learned, as it begins.
        labels: [m, k] label logits of the set, as they begin.
    """
    problem = match_problem(context, table, len(labels), None)
    with torch.no_grad():
        seen = stored if problem.decode is None else problem.decode(stored)
    experts: ExpertsTable = context.recipe.table("experts")
    rates = []
    for index, spec in enumerate(experts.all_networks):
        choices = _first_choices(problem, index)
        with context.threads(experts.batch_size, problem.network):
            real = [_real_piece(context, problem, choice) for choice in choices]
            guess = _guess(context, table, experts)
            followed = following_rate(partial(mean_distance, real), guess)
            own = [_own_piece(problem, choice, seen, labels) for choice in choices]
            rates.append(bearable_rate(partial(mean_distance, own), followed))
        context.progress.say(
            f"{MATCH_STAGE:<10} student_lr = {rates[-1]:.4g} for {spec}: {followed:.4g} follows "
            f"its experts best on real images"
        )
    return rates


def _guess(context: Context, table: MatchTable, experts: ExpertsTable) -> float:
    """The rate that an even slope would have."""
    expert_steps = table.span * step_count(len(context.data.train), experts.batch_size)
    return expected_rate(experts.lr, experts.momentum, expert_steps, table.inner_steps)


def real_batch(experts: ExpertsTable, own: int, images: int) -> int:
    """Images of a plain step on real ones: as of the set, but enough for a steady direction.

    Args:
        experts: [experts], whose batch is the most.
        own: images of an inner step.
        images: how many real ones there are.
    """
    return min(max(own, SMALLEST_BATCH), experts.batch_size, images)


def _first_choices(problem: MatchProblem, network: int) -> list[SegmentChoice]:
    """The first segments of a network that matching will draw."""
    found, step = list[SegmentChoice](), 0
    while len(found) < SEGMENTS:
        found += [choice for choice in problem.choose(step) if choice.network == network]
        step += 1
    return found[:SEGMENTS]


def _real_piece(context: Context, problem: MatchProblem, choice: SegmentChoice) -> Piece:
    """Plain steps on fresh real images."""
    images, hard = context.split("train")
    experts: ExpertsTable = context.recipe.table("experts")
    batch, steps = real_batch(experts, len(choice.batches[0]), len(images)), len(choice.batches)
    generator = context.generator(MATCH_STAGE, "student_lr", choice.expert, choice.start_epoch)
    drawn = torch.cat(draw_batches(len(images), batch, steps, generator))
    views = build_views(context.recipe.data.augmentation, one_per_batch=True)
    drawn_views = None
    if views is not None:
        drawn_views = [views.sample(batch, context.data.size, generator) for _ in range(steps)]
    segment = problem.read(choice)
    loop = make_inner_loop(
        segment.network or problem.network,
        images_at(images, drawn),
        hard_logits(hard[drawn.to(hard.device)], context.classes),
        list(torch.arange(len(drawn)).split(batch)),
        drawn_views,
    )
    return loop, segment.start, segment.target


def _own_piece(problem: MatchProblem, choice: SegmentChoice, seen: Tensor, labels: Tensor) -> Piece:
    """The steps that matching would take on the set as it begins."""
    segment = problem.read(choice)
    if problem.label is not None:
        labels = problem.label(segment, seen)
    given = step_labels(problem, choice.batches, choice.views, seen, labels)
    network = segment.network or problem.network
    loop = make_inner_loop(network, seen, given, choice.batches, choice.views)
    return loop, segment.start, segment.target
