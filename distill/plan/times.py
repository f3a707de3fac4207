"""How long each stage of a recipe would take: counts of units of work, each priced once."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from distill.plan.calibration import Timed
from distill.plan.clock import Clock
from distill.stages.loading import planned
from distill.stages.stage import Stage
from distill.stages.units.networks import Units
from distill.stages.units.unit import NotPricedError, Part, Task
from projectors import ProjectorError


@dataclass(frozen=True)
class StageTime:
    """A stage's tasks; `reason` says why there are none."""

    tasks: tuple[Task[Timed], ...]
    reason: str = ""

    @property
    def parts(self) -> tuple[Part[Timed], ...]:
        """All parts of all tasks."""
        return tuple(
            Part(task.count * part.times, part.unit) for task in self.tasks for part in task.parts
        )

    @property
    def seconds(self) -> float | None:
        """Seconds of the whole stage on one device, None if they could not be priced."""
        if self.reason:
            return None
        return sum(task.count * _seconds(task) for task in self.tasks)

    def wall_seconds(self, devices: int) -> float | None:
        """Seconds on `devices` equal devices: each free one takes the longest remaining task.

        Communication is not counted.
        """
        if self.reason:
            return None
        ordered = sorted((_seconds(t) for t in self.tasks for _ in range(t.count)), reverse=True)
        busy = [0.0] * max(1, min(devices, len(ordered)))
        for seconds in ordered:
            heapq.heapreplace(busy, busy[0] + seconds)
        return max(busy)


def stage_times(
    units: Units, clock: Clock, only: str | None = None
) -> Iterator[tuple[Stage, StageTime]]:
    """The time of every stage of a recipe, in the order of a run, or of one stage alone."""
    for stage in planned(units.recipe):
        if only in (None, stage.name):
            yield stage, _stage_time(stage, units, clock)


def _stage_time(stage: Stage, units: Units, clock: Clock) -> StageTime:
    try:
        tasks = stage.units(units, units.recipe.table(stage.entry.table))
        return StageTime(
            tuple(
                Task(task.count, tuple(Part(p.times, clock.time(p.unit)) for p in task.parts))
                for task in tasks
            )
        )
    except (NotPricedError, ProjectorError) as error:
        return StageTime((), f"not measured: {error}")


def _seconds(task: Task[Timed]) -> float:
    """Seconds of one of a task's equal pieces of work."""
    return sum(part.times * part.unit.seconds for part in task.parts)
