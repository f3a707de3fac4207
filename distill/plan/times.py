"""How long each stage of a recipe would take: so many units of work, each measured once here."""

from __future__ import annotations

from dataclasses import dataclass

from distill.evaluation.jobs import STUDENTS, WHOLE, Job, plan_jobs
from distill.plan.clock import Clock, Timed
from distill.plan.sizes import synthetic_shape
from distill.plan.units import Units
from distill.tables import CommitteeTable, EvaluateTable, ProjectorTable, Recipe, RelabelTable
from projectors import ProjectorError


@dataclass(frozen=True)
class Part:
    """`times` units of work of one kind."""

    times: int
    unit: Timed


@dataclass(frozen=True)
class StageTime:
    """A stage's parts; `reason` says why there are none."""

    parts: tuple[Part, ...]
    reason: str = ""

    @property
    def seconds(self) -> float | None:
        """Seconds of the whole stage, None if they could not be measured."""
        if self.reason:
            return None
        return sum(part.times * part.unit.seconds for part in self.parts)


def stage_times(recipe: Recipe, clock: Clock) -> dict[str, StageTime]:
    """The time of every stage of the recipe, in the order of a run."""
    units = Units(recipe, clock)
    found = {"experts": _experts(units), "match": _match(units)}
    if recipe.committee is not None:
        found["committee"] = _committee(units, recipe.committee)
    if recipe.relabel is not None:
        found["relabel"] = _relabel(units, recipe.relabel)
    if recipe.projector is not None:
        found["project"] = _project(units, recipe.projector)
    if recipe.evaluate is not None:
        found["evaluate"] = _evaluate(units, recipe.evaluate)
    return found


def _batches(count: int, size: int) -> int:
    return -(-count // min(size, count))


def _predictions(units: Units, spec: str, count: int, times: int) -> Part:
    """Predictions for `count` images, `times` over."""
    batch = min(count, 1000)
    return Part(times * _batches(count, batch), units.forward(spec, batch))


def _experts(units: Units) -> StageTime:
    table, shape = units.recipe.matching()[0], units.clock.shape
    batch = min(table.batch_size, shape.train)
    step = units.step(table.network, batch, units.recipe.data.augmentation, dsa=True, adamw=False)
    epochs = table.count * table.epochs
    return StageTime(
        (
            Part(epochs * _batches(shape.train, batch), step),
            _predictions(units, table.network, shape.validation, epochs),
        )
    )


def _match(units: Units) -> StageTime:
    recipe, shape = units.recipe, units.clock.shape
    experts, table = recipe.matching()
    count = synthetic_shape(recipe, shape).seen
    times = table.iterations * table.segments * table.inner_steps
    parts = [Part(times, units.inner_step(min(table.batch_size or count, count)))]
    # Both starts ask every finished expert about images: all real ones, or the chosen ones.
    if table.init == "correct":
        parts.append(_predictions(units, experts.network, shape.train, experts.count))
    if table.label_init == "experts":
        parts.append(_predictions(units, experts.network, count, experts.count))
    return StageTime(tuple(parts))


def _committee(units: Units, table: CommitteeTable) -> StageTime:
    shape = units.clock.shape
    parts: list[Part] = []
    for spec in table.members:
        own = table.training(spec)
        batch = min(own.batch_size, shape.train)
        adamw = own.optimizer != "sgd"
        step = units.step(spec, batch, own.augmentation, dsa=False, adamw=adamw)
        parts.append(Part(own.epochs * _batches(shape.train, batch), step))
        parts.append(_predictions(units, spec, shape.validation, own.epochs))
    return StageTime(tuple(parts))


def _relabel(units: Units, table: RelabelTable) -> StageTime:
    count = synthetic_shape(units.recipe, units.clock.shape).seen
    batch = min(table.batch_size, count)
    return StageTime((Part(table.epochs * _batches(count, batch), units.vote(table, batch)),))


def _project(units: Units, table: ProjectorTable) -> StageTime:
    try:
        step = units.fit_step(table, min(table.batch_size, units.clock.shape.train))
        return StageTime((Part(table.steps, step),))
    except ProjectorError as error:
        return StageTime((), f"not measured: {error}")


def _evaluate(units: Units, table: EvaluateTable) -> StageTime:
    recipe = units.recipe
    there = {
        "hard": True,
        "learned": True,
        "votes": recipe.relabel is not None,
        "projector": recipe.projector is not None,
    }
    labellers = {"votes": recipe.committee is not None, "projector": there["projector"]}
    available, online = ([name for name, yes in kind.items() if yes] for kind in (there, labellers))
    # Students that differ in their seed alone take the same time.
    jobs = plan_jobs(table.students, 1, table.labels, available, online)
    whole_seeds = table.seeds if table.whole_seeds is None else min(table.whole_seeds, table.seeds)
    try:
        parts = []
        for job in jobs:
            seeds = whole_seeds if job.group == WHOLE else table.seeds
            parts += [Part(seeds * part.times, part.unit) for part in _job(units, table, job)]
        return StageTime(tuple(parts))
    except ProjectorError as error:
        return StageTime((), f"not measured: {error}")


def _job(units: Units, table: EvaluateTable, job: Job) -> list[Part]:
    """The parts of training and testing one student."""
    recipe, shape = units.recipe, units.clock.shape
    relabel = recipe.relabel or RelabelTable()
    whole = job.group == WHOLE
    count = shape.train if whole else synthetic_shape(recipe, shape).seen
    stored = job.group == STUDENTS and job.labels == "votes"
    batch = min(relabel.batch_size if stored else table.batch_size, count)
    steps = (table.whole_epochs if whole else table.epochs) * _batches(count, batch)
    tested = _predictions(units, job.student, shape.test, 1)
    if stored:
        step = units.step(job.student, batch, relabel.augmentation, dsa=False, adamw=True)
        return [Part(steps, step), tested]
    if job.labels in ("hard", "learned"):
        views = recipe.data.augmentation
        step = units.step(job.student, batch, views, dsa=True, adamw=False)
        return [Part(steps, step), tested]
    # The views are drawn with the labels, by `online`.
    step = units.step(job.student, batch, "none", dsa=False, adamw=True)
    return [Part(steps, step), Part(steps, units.online(job.labels, batch)), tested]
