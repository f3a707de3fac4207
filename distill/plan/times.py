"""How long each stage of a recipe would take: so many units of work, each priced once."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from distill.evaluation.jobs import STUDENTS, WHOLE, Job, plan_jobs
from distill.plan.calibration import Timed
from distill.plan.clock import Clock
from distill.plan.sizes import synthetic_shape
from distill.plan.units import Training, Units
from distill.tables import CommitteeTable, EvaluateTable, ProjectorTable, Recipe, RelabelTable
from projectors import ProjectorError


@dataclass(frozen=True)
class Part:
    """`times` units of work of one kind, one after the other."""

    times: int
    unit: Timed


@dataclass(frozen=True)
class Task:
    """`count` equal pieces of work that do not wait for each other."""

    count: int
    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        """Of one of them."""
        return sum(part.times * part.unit.seconds for part in self.parts)


@dataclass(frozen=True)
class StageTime:
    """A stage's tasks; `reason` says why there are none."""

    tasks: tuple[Task, ...]
    reason: str = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts of all tasks."""
        return tuple(
            Part(task.count * part.times, part.unit) for task in self.tasks for part in task.parts
        )

    @property
    def seconds(self) -> float | None:
        """Seconds of the whole stage on one device, None if they could not be priced."""
        if self.reason:
            return None
        return sum(task.count * task.seconds for task in self.tasks)

    def wall_seconds(self, devices: int) -> float | None:
        """Seconds on `devices` equal devices: each free one takes the longest task that is left.

        Sending things about is not counted.
        """
        if self.reason:
            return None
        ordered = sorted((t.seconds for t in self.tasks for _ in range(t.count)), reverse=True)
        busy = [0.0] * max(1, min(devices, len(ordered)))
        for seconds in ordered:
            heapq.heapreplace(busy, busy[0] + seconds)
        return max(busy)


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


def _stage(tasks: Iterable[Task]) -> StageTime:
    return StageTime(tuple(tasks))


def _experts(units: Units) -> StageTime:
    table, shape = units.recipe.experts, units.clock.shape
    batch = min(table.batch_size, shape.train)
    families = units.recipe.data.augmentation
    how = Training(families, one_per_batch=True, optimizer="sgd", sharp=table.sharpness_rho > 0)
    steps = Part(table.epochs * _batches(shape.train, batch), units.step(table.network, batch, how))
    tested = _predictions(units, table.network, shape.validation, table.epochs)
    return _stage([Task(table.count, (steps, tested))])


def _match(units: Units) -> StageTime:
    recipe, shape = units.recipe, units.clock.shape
    table, experts = recipe.match, recipe.experts
    count = synthetic_shape(recipe, shape).seen
    unit = units.inner_step(min(table.batch_size or count, count))
    # Outer steps wait for each other, the segments of one do not.
    tasks = [Task(table.segments, (Part(table.iterations * table.inner_steps, unit),))]
    # Both starts ask every finished expert about images: all real ones, or the chosen ones.
    if table.init == "correct":
        tasks.append(Task(experts.count, (_predictions(units, experts.network, shape.train, 1),)))
    if table.label_init == "experts":
        tasks.append(Task(experts.count, (_predictions(units, experts.network, count, 1),)))
    return _stage(tasks)


def _committee(units: Units, table: CommitteeTable) -> StageTime:
    shape = units.clock.shape
    batch = min(table.batch_size, shape.train)
    tasks = []
    for spec in table.members:
        step = units.step(spec, batch, Training(table.augmentation))
        steps = Part(table.epochs * _batches(shape.train, batch), step)
        tasks.append(Task(1, (steps, _predictions(units, spec, shape.validation, table.epochs))))
    return _stage(tasks)


def _relabel(units: Units, table: RelabelTable) -> StageTime:
    count = synthetic_shape(units.recipe, units.clock.shape).seen
    batch = min(table.batch_size, count)
    return _stage([Task(table.epochs, (Part(_batches(count, batch), units.vote(table, batch)),))])


def _project(units: Units, table: ProjectorTable) -> StageTime:
    try:
        step = units.fit_step(table, min(table.batch_size, units.clock.shape.train))
        return _stage([Task(1, (Part(table.steps, step),))])
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
    try:
        return _stage([Task(table.seeds, tuple(_job(units, table, job))) for job in jobs])
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
        step = units.step(job.student, batch, Training(relabel.augmentation))
        return [Part(steps, step), tested]
    if job.labels in ("hard", "learned"):
        how = Training(recipe.data.augmentation, one_per_batch=True, optimizer="sgd")
        return [Part(steps, units.step(job.student, batch, how)), tested]
    # The views are drawn with the labels, by `online`.
    step = units.step(job.student, batch, Training("none"))
    return [Part(steps, step), Part(steps, units.online(job.labels, batch)), tested]
