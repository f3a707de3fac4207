"""What matching costs, as the stage itself does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from distill.recipes.build import build_gradient, build_views
from distill.recipes.tables.match import MatchTable
from distill.stages.match.memory import inner_step_cost
from distill.stages.units.networks import Units
from distill.stages.units.shapes import synthetic_shape
from distill.stages.units.unit import Part, Task, Unit, fixed_generator
from synth.matching.gradients import matching_gradient
from synth.parameters import parameter_vector


def match_units(units: Units, table: MatchTable) -> list[Task[Unit]]:
    """Inner steps; outer steps wait for each other, the segments of one do not."""
    experts, _ = units.recipe.matching()
    count = synthetic_shape(units.recipe, units.shape).seen
    step = _inner_step(units, table, min(table.batch_size or count, count))
    tasks = [Task(table.segments, (Part(table.iterations * table.inner_steps, step),))]
    # Both starts ask every finished expert about images: all real ones, or the chosen ones.
    if table.init == "correct":
        asked = units.predictions(experts.network, units.shape.train)
        tasks.append(Task(experts.count, (asked,)))
    if table.label_init == "experts":
        tasks.append(Task(experts.count, (units.predictions(experts.network, count),)))
    return tasks


def _inner_step(units: Units, table: MatchTable, batch: int) -> Unit:
    """One inner step of matching with its share of the gradient."""
    recipe = units.recipe
    spec, gradient = recipe.matching()[0].network, build_gradient(table)
    views = build_views(recipe.data.augmentation, one_per_batch=True)
    # Enough steps for the mean: "sqrt" takes most of them twice only if there are several.
    steps = min(table.inner_steps, 9 if table.snapshots == "sqrt" else 4) * units.repeats

    def work(size: int) -> tuple[Callable[[], object], int]:
        network, generator = units.network(spec), fixed_generator()
        start = parameter_vector(network)
        move = torch.randn(len(start), generator=fixed_generator()).to(start.device)
        images, labels = units.images(size), units.labels(size)
        batches = [torch.arange(size) for _ in range(steps)]
        lr = torch.tensor(table.student_lr, device=units.device)

        def call() -> None:
            drawn = None
            if views is not None:
                drawn = [views.sample(size, units.shape.size, generator) for _ in batches]
            matching_gradient(
                network, start, start + 0.01 * move, images, labels, lr, batches, gradient, drawn
            )

        return call, steps

    name = f"inner step of {spec}, {table.gradient}, {recipe.data.augmentation}"
    cost = partial(inner_step_cost, recipe, units.shape)
    return Unit(name, batch, work, cost, units.size([spec]))
