"""How long each stage of a recipe would take: so many units of work, each priced once."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from distill.evaluation.jobs import STUDENTS, WHOLE, StudentJob, plan_jobs, plan_plain, plan_trials
from distill.evaluation.students import protocol_name
from distill.plan.calibration import Timed
from distill.plan.clock import Clock
from distill.plan.recovering import judged_crops, recover_step
from distill.plan.sizes import synthetic_shape
from distill.plan.units import Training, Units
from distill.recipes.build import is_trained
from distill.recipes.recipe import Recipe
from distill.recipes.tables.committee import CommitteeTable
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.experts import ExpertsTable
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.projector import ProjectorTable
from distill.recipes.tables.recover import RecoverTable
from distill.recipes.tables.relabel import RelabelTable
from distill.recipes.tables.select import SelectTable
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


def stage_times(
    recipe: Recipe, clock: Clock, only: str | None = None
) -> Iterator[tuple[str, StageTime]]:
    """The time of every stage of the recipe, in the order of a run, or of one stage alone."""
    units = Units(recipe, clock)
    for name, (table, price) in _STAGES.items():
        if getattr(recipe, table) is not None and only in (None, name):
            yield name, price(units, getattr(recipe, table))


def _batches(count: int, size: int) -> int:
    return -(-count // min(size, count))


def _predictions(units: Units, spec: str, count: int, times: int) -> Part:
    """Predictions for `count` images, `times` over."""
    batch = min(count, 1000)
    return Part(times * _batches(count, batch), units.forward(spec, batch))


def _stage(tasks: Iterable[Task]) -> StageTime:
    return StageTime(tuple(tasks))


def _experts(units: Units, table: ExpertsTable) -> StageTime:
    shape = units.clock.shape
    batch = min(table.batch_size, shape.train)
    families = units.recipe.data.augmentation
    how = Training(families, one_per_batch=True, optimizer="sgd", sharp=table.sharpness_rho > 0)
    steps = Part(table.epochs * _batches(shape.train, batch), units.step(table.network, batch, how))
    tested = _predictions(units, table.network, shape.validation, table.epochs)
    return _stage([Task(table.count, (steps, tested))])


def _match(units: Units, table: MatchTable) -> StageTime:
    recipe, shape = units.recipe, units.clock.shape
    experts, _ = recipe.matching()
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
    tasks = []
    for spec in table.members:
        own = table.training(spec)
        if is_trained(spec):
            tasks.append(Task(1, (_predictions(units, spec, shape.validation, 1),)))
            continue
        batch = min(own.batch_size, shape.train)
        step = units.step(spec, batch, Training(own.augmentation, optimizer=own.optimizer))
        steps = Part(own.epochs * _batches(shape.train, batch), step)
        tasks.append(Task(1, (steps, _predictions(units, spec, shape.validation, own.epochs))))
    return _stage(tasks)


def _recover(units: Units, table: RecoverTable) -> StageTime:
    shape = units.clock.shape
    pool = table.members or units.members
    # A call is recovered by itself: one image of each class, or all of one class.
    within = table.batches == "within"
    calls, images = (shape.classes, table.ipc) if within else (table.ipc, shape.classes)
    batch = min(table.batch_size or images, images)
    steps = table.iterations * _batches(images, batch)

    def unit(spec: str) -> Timed:
        return recover_step(units, spec, batch, table)

    # A call draws some members; each is counted as often as it is drawn in the mean.
    shares = [Part(round(steps * table.drawn / len(pool)), unit(spec)) for spec in pool]
    mosaics = _mosaics(units, table) if table.init == "mosaics" else []
    return _stage([Task(calls, tuple(shares)), *mosaics])


def _select(units: Units, table: SelectTable) -> StageTime:
    if table.method == "mosaics":
        return _stage(_mosaics(units, table))
    if table.method == "random":
        return _stage([])
    return StageTime((), f"not measured: {table.method} is not priced")


def _mosaics(units: Units, table: RecoverTable | SelectTable) -> list[Task]:
    """The committee judges every crop of every candidate of a class, 50 candidates at a time."""
    shape = units.clock.shape
    candidates = min(table.candidates, shape.train // shape.classes)
    crops = candidates * table.crops
    batch = min(crops, 50 * table.crops)
    unit = judged_crops(units, batch)
    return [Task(shape.classes, (Part(_batches(crops, batch), unit),))]


def _relabel(units: Units, table: RelabelTable) -> StageTime:
    if table.active != "none":
        return StageTime((), f"not measured: relabel.active = {table.active} is not priced")
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
        "learned": recipe.match is not None,
        "votes": recipe.relabel is not None,
        "projector": recipe.projector is not None,
    }
    labellers = {"votes": recipe.committee is not None, "projector": there["projector"]}
    available, online = ([name for name, yes in kind.items() if yes] for kind in (there, labellers))
    # Students that differ in their seed alone take the same time.
    jobs = plan_jobs(table.students, 1, table.labels, available, online)
    jobs += plan_plain(jobs) if table.scores else []
    whole_seeds = table.seeds if table.whole_seeds is None else min(table.whole_seeds, table.seeds)
    counts = [(job, whole_seeds if job.group == WHOLE else table.seeds) for job in jobs]
    counts += [(job, 1) for job in plan_trials(jobs, table.lr_factors)]
    if table.equal_bytes:
        return StageTime((), "not measured: the control of evaluate.equal_bytes is not priced")
    try:
        return _stage(Task(count, tuple(_job(units, table, job))) for job, count in counts if count)
    except ProjectorError as error:
        return StageTime((), f"not measured: {error}")


def _job(units: Units, table: EvaluateTable, job: StudentJob) -> list[Part]:
    """The parts of training and testing one student."""
    recipe, shape = units.recipe, units.clock.shape
    relabel = recipe.relabel or RelabelTable()
    whole = job.group == WHOLE
    count = shape.train if whole else synthetic_shape(recipe, shape).seen
    stored = job.group == STUDENTS and job.labels == "votes"
    batch = min(relabel.batch_size if stored else table.batch_size, count)
    steps = (table.whole_epochs if whole else table.epochs) * _batches(count, batch)
    distilled = protocol_name(table, job) == "kd"
    optimizer: Literal["sgd", "adamw"] = "adamw" if distilled else "sgd"
    tested = _predictions(units, job.student, shape.validation if job.trial else shape.test, 1)
    online = job.labels in ("votes", "projector") and not stored and not whole
    if online or not job.views:
        # Views that are labelled online are drawn with the labels.
        how = Training("none", optimizer=optimizer)
    elif stored or distilled:
        how = Training(relabel.augmentation, optimizer=optimizer)
    else:
        how = Training(recipe.data.augmentation, one_per_batch=True, optimizer=optimizer)
    parts = [Part(steps, units.step(job.student, batch, how)), tested]
    return [*parts, Part(steps, units.online(job.labels, batch))] if online else parts


# The stages in the order of a run: the table that asks for each, and what prices it.
_STAGES: dict[str, tuple[str, Callable[[Units, Any], StageTime]]] = {
    "experts": ("experts", _experts),
    "match": ("match", _match),
    "committee": ("committee", _committee),
    "recover": ("recover", _recover),
    "select": ("select", _select),
    "relabel": ("relabel", _relabel),
    "project": ("projector", _project),
    "evaluate": ("evaluate", _evaluate),
}
