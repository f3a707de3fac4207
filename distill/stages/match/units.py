"""What matching costs, as the stage itself does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from distill.recipes.build import build_gradient, build_views
from distill.recipes.tables.match import MatchTable
from distill.run.dry_run import Cost
from distill.stages.evaluate import online_labels
from distill.stages.match.features import class_images, feature_step
from distill.stages.match.memory import inner_step_cost
from distill.stages.match.start_rate import SEGMENTS, USUAL_TRIES, real_batch
from distill.stages.units.coded import coding_of
from distill.stages.units.networks import Units
from distill.stages.units.shapes import synthetic_shape
from distill.stages.units.unit import Part, Task, Unit, fixed_generator
from synth.augment import Augmentation
from synth.formation import decode_images
from synth.matching.gradients import matching_gradient
from synth.matching.rate import Rate, rate_step
from synth.parameters import parameter_vector
from synth.training.loop import TrainSettings


def match_units(units: Units, table: MatchTable) -> list[Task[Unit]]:
    """Steps of segments; outer steps wait for each other, the segments of one do not."""
    experts, _ = units.recipe.matching()
    count = synthetic_shape(units.recipe, units.shape).seen
    parts = [part for spec in experts.all_networks for part in _network_parts(units, table, spec)]
    tasks = [Task(table.segments, tuple(parts))]
    if table.student_lr == "auto":
        tasks.append(Task(1, _rate_parts(units, table, count)))
    if table.coded:
        tasks.append(Task(1, (Part(table.iterations, _coded_step(units, table)),)))
    # Both starts ask every finished expert about images: all real ones, or the chosen ones.
    if table.init == "correct":
        asked = units.predictions(experts.network, units.shape.train)
        tasks.append(Task(experts.count, (asked,)))
    if table.label_init == "experts":
        tasks.append(Task(experts.count, (units.predictions(experts.network, count),)))
    return tasks


def _network_parts(units: Units, table: MatchTable, spec: str) -> list[Part[Unit]]:
    """What the segments of one network take: inner steps, features of each class, or both."""
    count, classes = synthetic_shape(units.recipe, units.shape).seen, units.shape.classes
    # Networks take turns.
    turns = len(units.recipe.matching()[0].all_networks)
    parts = list[Part[Unit]]()
    if table.matches_parameters:
        step = _inner_step(units, table, spec, min(table.batch_size or count, count))
        inner = [step] if not table.taught else _taught_step(units, table, step)
        steps = -(-table.iterations * table.inner_steps // turns)
        parts += [Part(steps, unit) for unit in inner]
    if table.reads_features:
        step, steps = feature_step(units, table, spec), -(-table.iterations * classes // turns)
        parts.append(Part(steps, step))
        if table.taught:
            parts.append(Part(steps, _labels_of_views(units, table, class_images(units, table)[1])))
    return parts


def _rate_parts(units: Units, table: MatchTable, count: int) -> tuple[Part[Unit], ...]:
    """Plain steps of the search for a student learning rate, on real images and on the set.

    Teachers' labels of a few views are not counted.
    """
    experts, _ = units.recipe.matching()
    families, settings = units.recipe.data.augmentation, TrainSettings(1, experts.lr)
    own = min(table.batch_size or count, count)
    batches = (real_batch(experts, own, units.shape.train), own)
    steps = USUAL_TRIES * SEGMENTS * table.inner_steps
    return tuple(
        Part(steps, units.training_step(spec, batch, families, settings, one_per_batch=True))
        for spec in experts.all_networks
        for batch in batches
    )


def _taught_step(units: Units, table: MatchTable, step: Unit) -> list[Unit]:
    """An inner step and the labels of its views, with the memory that teachers and labels keep."""
    labels = _labels_of_views(units, table, step.batch)
    kept = 4 * table.inner_steps * step.batch * units.shape.classes
    return [_keeping(step, kept + 4 * labels.parameters), _keeping(labels, kept)]


def _labels_of_views(units: Units, table: MatchTable, batch: int) -> Unit:
    """Teachers' labels of a view of `batch` images."""
    families = units.recipe.data.augmentation
    views = build_views(families, one_per_batch=True) or Augmentation(())
    labels = online_labels(units, table.labels, batch, views)
    return replace(labels, what=f"{labels.what}, {families}")


def _keeping(unit: Unit, kept: int) -> Unit:
    """A unit of work beside which so many bytes are kept."""

    def cost(size: int) -> Cost:
        found = unit.cost(size)
        return Cost(found.flops, found.peak_bytes + kept)

    return replace(unit, cost=cost)


def _coded_step(units: Units, table: MatchTable) -> Unit:
    """What an outer step takes longer where a coding's numbers are learned.

    Both directions of decoding and, within a budget, a step down the bits.
    """
    shape = units.shape
    stored = synthetic_shape(units.recipe, shape).stored

    def work(size: int) -> tuple[Callable[[], object], int]:
        coding = coding_of(units, table.images, size)
        start = coding.start(units.images(size).clamp(0, 1))
        rate = Rate(coding.bits, float(coding.bits(start).detach()))
        multiplier = torch.zeros((), device=start.device)

        def call() -> None:
            parameters = start.detach().requires_grad_()
            seen = decode_images(coding.decode(parameters), table.factor)
            (slope,) = torch.autograd.grad(seen.square().sum(), parameters)
            if table.budget_bytes is not None:
                rate_step(start, start - 1e-3 * slope, multiplier, rate)

        return call, 1

    def cost(size: int) -> Cost:
        # Numbers and images, their gradients, and the rule's two moments.
        return Cost(0, 4 * 6 * size * table.factor**2 * shape.pixels)

    return Unit(f"outer step of images kept as {table.images}", stored, work, cost)


def _inner_step(units: Units, table: MatchTable, spec: str, batch: int) -> Unit:
    """One inner step of matching a network with its share of the gradient."""
    recipe = units.recipe
    views = build_views(recipe.data.augmentation, one_per_batch=True)
    # Enough steps for the mean: "sqrt" takes most of them twice only if there are several.
    steps = min(table.inner_steps, 9 if table.snapshots == "sqrt" else 4) * units.repeats

    def work(size: int, *, compiled: bool = False) -> tuple[Callable[[], object], int]:
        chosen = table.model_copy(update={"compile": "on" if compiled else "off"})
        network, gradient = units.network(spec), build_gradient(chosen)
        generator = fixed_generator()
        start = parameter_vector(network)
        move = torch.randn(len(start), generator=fixed_generator()).to(start.device)
        images, labels = units.images(size), units.labels(size)
        batches = [torch.arange(size) for _ in range(steps)]
        # Any rate takes as long.
        rate = 0.01 if table.student_lr == "auto" else table.student_lr
        lr = torch.tensor(rate, device=units.device)

        def call() -> None:
            drawn = None
            if views is not None:
                drawn = [views.sample(size, units.shape.size, generator) for _ in batches]
            matching_gradient(
                network, start, start + 0.01 * move, images, labels, lr, batches, gradient, drawn
            )

        return call, steps

    name = f"inner step of {spec}, {table.gradient}, {recipe.data.augmentation}"
    cost = partial(inner_step_cost, recipe, units.shape, spec)
    compiled = partial(work, compiled=True) if table.compiled else None
    return Unit(name, batch, work, cost, units.size([spec]), compiled)
