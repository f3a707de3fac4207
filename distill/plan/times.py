"""How long each stage of a recipe would take: counts of units of work, each priced once."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from distill.machine import resident_bytes
from distill.plan.calibration import Timed
from distill.plan.clock import Clock
from distill.run.engines import Load, Local
from distill.run.load import STEP_FLOPS
from distill.stages.loading import planned
from distill.stages.stage import Stage
from distill.stages.units.networks import Units
from distill.stages.units.unit import NotPricedError, Part, Task, Unit
from projectors import ProjectorError


@dataclass(frozen=True)
class StageTime:
    """A stage's tasks; `reason` says why there are none.

    Attributes:
        tasks: what is done.
        reason: why that is not known, or "".
        workers: processes that share the tasks that are mapped; None where this one does them.
        start_seconds: until they work.
    """

    tasks: tuple[Task[Timed], ...]
    reason: str = ""
    workers: int | None = None
    start_seconds: float = 0.0

    @property
    def parts(self) -> tuple[Part[Timed], ...]:
        """All parts of all tasks."""
        return tuple(
            Part(task.count * part.times, part.unit) for task in self.tasks for part in task.parts
        )

    @property
    def seconds(self) -> float | None:
        """Seconds of the whole stage on one device, None if they could not be priced.

        Where workers share its tasks, those that are not mapped come before or after.
        """
        if self.reason:
            return None
        if self.workers is None or self.workers == 1:
            return _spread(self.tasks, 1)
        mapped = tuple(task for task in self.tasks if task.mapped)
        others = tuple(task for task in self.tasks if not task.mapped)
        return _spread(others, 1) + self.start_seconds + _spread(mapped, self.workers)

    def wall_seconds(self, devices: int) -> float | None:
        """Seconds on `devices` equal devices: each free one takes the longest remaining task.

        Communication is not counted.
        """
        if self.reason or devices == 1:
            return self.seconds
        return _spread(self.tasks, devices * (self.workers or 1))


def stage_times(
    units: Units, clock: Clock, engine: Local, only: str | None = None
) -> Iterator[tuple[Stage, StageTime]]:
    """The time of every stage of a recipe, in the order of a run, or of one stage alone.

    Args:
        units: of the recipe.
        clock: times them.
        engine: does what is mapped.
        only: name of a stage; None for all.
    """
    for stage in planned(units.recipe):
        if only in (None, stage.name):
            table = units.recipe.table(stage.entry.table)
            yield stage, time_of(partial(stage.units, units, table), clock, engine)


def time_of(tasks: Callable[[], Sequence[Task[Unit]]], clock: Clock, engine: Local) -> StageTime:
    """The time of tasks, or why it is not known.

    Args:
        tasks: states them; may raise NotPricedError or ProjectorError.
        clock: times their units.
        engine: does what is mapped.
    """
    try:
        return timed_tasks(tasks(), clock, engine)
    except (NotPricedError, ProjectorError) as error:
        return StageTime((), f"not measured: {error}")


def timed_tasks(tasks: Sequence[Task[Unit]], clock: Clock, engine: Local) -> StageTime:
    """The time of the tasks of a stage, by as many workers as the engine gives them.

    Raises:
        NotPricedError: if the calibration cannot price one of their units.
    """
    workers = _workers(tasks, clock, engine)
    timed = []
    for task in tasks:
        by = workers if task.mapped else None
        parts = tuple(Part(part.times, clock.time(part.unit, by), part.once) for part in task.parts)
        timed.append(Task(task.count, parts, task.mapped))
    return StageTime(tuple(timed), "", workers, clock.companions.start_seconds)


def _workers(tasks: Sequence[Task[Unit]], clock: Clock, engine: Local) -> int | None:
    """How many workers the engine gives the tasks that are mapped, as `Context.map` asks it."""
    mapped = [task for task in tasks if task.mapped]

    def load() -> Load:
        parts = [(task.count * part.times, part.unit) for task in mapped for part in task.parts]
        costs = [(times, clock.cost(unit)) for times, unit in parts]
        flops = sum(times * (cost.flops + STEP_FLOPS) for times, cost in costs)
        most = max((cost.peak_bytes for _, cost in costs), default=0)
        return Load(flops, resident_bytes() + most)

    if not mapped:
        return None
    gpu = clock.device.type == "cuda"
    jobs = sum(task.count for task in mapped)
    chosen = engine.engine_for(jobs, load, gpu=gpu).workers
    return None if chosen is None else min(int(chosen), jobs)


def _spread(tasks: Sequence[Task[Timed]], workers: int) -> float:
    """Seconds of tasks on so many equal workers: each free one takes the longest that is left.

    A worker compiles a network once, and does once what it remembers.
    """
    ordered = sorted(tasks, key=_seconds, reverse=True)
    busy = [(0.0, place) for place in range(max(1, min(workers, sum(t.count for t in ordered))))]
    known: list[set[object]] = [set() for _ in busy]
    for task in ordered:
        for number in range(task.count):
            seconds, place = busy[0]
            for part in task.parts:
                seconds += _seconds_of(part, number, known[place])
            heapq.heapreplace(busy, (seconds, place))
    return max(seconds for seconds, _ in busy)


def _seconds_of(part: Part[Timed], number: int, known: set[object]) -> float:
    """Seconds of a part of the task of this number, for a worker that knows some; it learns."""
    unit, remembered = part.unit, (part.once, number)
    if part.once and remembered in known:
        return 0.0
    compiling = 0.0 if unit in known else unit.compiling
    known |= {unit, remembered}
    return part.times * unit.seconds + compiling


def _seconds(task: Task[Timed]) -> float:
    """Seconds of one of a task's equal pieces of work."""
    return sum(part.times * part.unit.seconds for part in task.parts)
