"""The controls of a sweep: coded real images in the bytes of its points, and all real images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distill.evaluation.coded import CodedReal, describe_coded, plan_coded
from distill.evaluation.confusion import Grade
from distill.evaluation.equal_bytes import Choices, choose_ways
from distill.evaluation.jobs import CODED, STUDENTS, WHOLE, StudentJob, statistics_of
from distill.evaluation.students import student_load
from distill.evaluation.sweep.images.work import (
    Budget,
    Fit,
    Graded,
    Offers,
    find_offers,
    fit_seeds,
    judged_set,
    train_control,
)
from distill.evaluation.sweep.jobs import HARD
from distill.evaluation.sweep.log import JobLog, Work
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.engines import Load
from distill.sets.set_file import SetFile

# Operations that take as long as coding a byte, and how often a search codes its images.
_BYTE_FLOPS, _CODED_TIMES = 1e4, 30


@dataclass(frozen=True)
class Controls:
    """Trains the controls of a sweep.

    Attributes:
        log: of the sweep.
        set_file: set.h5, of which the controls take only how students are trained.
        content: what it holds.
    """

    log: JobLog
    set_file: Path
    content: SetFile

    @property
    def table(self) -> EvaluateTable:
        """How students are trained."""
        table: EvaluateTable = self.log.context.recipe.table("evaluate")
        return table

    def coded(self, sizes: Sequence[Budget]) -> dict[str, dict[str, Any]]:
        """Accuracy of coded real images by student and bytes, in the form of an evaluation's.

        How they are kept is chosen for each student and number of bytes on the validation split,
        as `distill.evaluation.coded` does.

        Args:
            sizes: of different bytes.
        """
        base = self._jobs(STUDENTS, self.table.seeds)
        chosen = {
            budget: choose_ways(self.table, base, {HARD: reals}, self._measure)
            for budget, reals in self._offers(sizes).items()
        }
        fitted = self._fit(chosen)
        jobs = {budget: plan_coded(base, CODED, reals) for budget, reals in fitted.items()}
        graded = self._train("coded real images", (job for plan in jobs.values() for job in plan))
        found: dict[str, dict[str, Any]] = {student: {} for student in self.table.students}
        for budget, plan in jobs.items():
            by_student = _statistics(plan, graded)
            describe_coded(by_student, fitted[budget], self.log.context.classes)
            for student, stats in by_student.items():
                found[student][str(budget.bytes)] = stats[HARD]
        return found

    def whole(self) -> dict[str, Any]:
        """Accuracy of students on all real images, in the form of an evaluation's."""
        seeds = self.table.seeds if self.table.whole_seeds is None else self.table.whole_seeds
        # Named with their epochs, which decide nothing else: others go on from the same log.
        epochs = self.table.whole_epochs
        jobs = [replace(job, epochs=epochs) for job in self._jobs(WHOLE, seeds)]
        return _statistics(jobs, self._train("all real images", jobs))

    def _jobs(self, group: str, seeds: int) -> list[StudentJob]:
        return [
            StudentJob(group, student, HARD, seed)
            for student in self.table.students
            for seed in range(seeds)
        ]

    def _offers(self, sizes: Sequence[Budget]) -> dict[Budget, list[CodedReal]]:
        work = Work(find_offers, _coding_load, Offers, _offers_note)
        found = self.log.results("fit real images", sizes, work)
        return {size: [CodedReal(*real) for real in found[size.name].reals] for size in sizes}

    def _fit(self, chosen: Mapping[Budget, Choices]) -> dict[Budget, Choices]:
        """As many images as fit for every seed, by budget, student and label source."""
        jobs = {
            (budget, key): Fit(budget, real, self.table.seeds)
            for budget, reals in chosen.items()
            for key, real in reals.items()
        }
        work = Work(fit_seeds, lambda job: _coding_load(job.budget), CodedReal, _fit_note)
        found = self.log.results("fit real images", _distinct(jobs.values()), work)
        return {
            budget: {key: found[jobs[budget, key].name] for key in reals}
            for budget, reals in chosen.items()
        }

    def _train(self, task: str, jobs: Iterable[StudentJob]) -> dict[str, Graded]:
        """The result of each job by its name; each is trained once."""
        train = partial(train_control, self.set_file)
        work = Work(train, self._load, Graded, _graded_note)
        return self.log.results(task, _distinct(jobs), work)

    def _measure(self, task: str, jobs: Sequence[StudentJob]) -> Sequence[tuple[StudentJob, Grade]]:
        """The result of each job, in the form of an evaluation's."""
        found = self._train(task, jobs)
        return [(job, Grade(found[job.name].accuracy)) for job in jobs]

    def _load(self, job: StudentJob) -> Load:
        context = self.log.context
        return student_load(context, self.table, judged_set(context, self.content), job)


def _coding_load(budget: Budget) -> Load:
    return Load(_BYTE_FLOPS * _CODED_TIMES * budget.bytes, 0)


def _distinct(jobs: Iterable[Any]) -> list[Any]:
    return list({job.name: job for job in jobs}.values())


def _statistics(jobs: Iterable[StudentJob], graded: dict[str, Graded]) -> dict[str, Any]:
    """{student: {label source: statistics over seeds}}."""
    runs: dict[str, dict[str, list[float]]] = {}
    for job in jobs:
        of_student = runs.setdefault(job.student, {})
        of_student.setdefault(job.labels, []).append(graded[job.name].accuracy)
    return {
        student: {labels: statistics_of(values) for labels, values in of_student.items()}
        for student, of_student in runs.items()
    }


def _offers_note(budget: Budget, offers: Offers) -> str:
    return f"{len(offers.reals)} codings of real images in {budget.bytes:,} bytes"


def _fit_note(job: Fit, real: CodedReal) -> str:
    return f"{real.coding}: {real.ipc} a class in {real.bytes:,} bytes"


def _graded_note(job: StudentJob, graded: Graded) -> str:
    kept = f" {job.coding} {job.ipc} a class" if job.coding else ""
    return f"{job.group}{kept} {job.student}: {graded.accuracy:.3f}"
