"""Run an evaluation job by job; finished jobs are kept over an interruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distill.errors import WorkError
from distill.evaluation.balance import add_balanced
from distill.evaluation.confusion import Grade, sum_confusions
from distill.evaluation.equal_bytes import choose_controls
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import (
    STUDENTS,
    StudentJob,
    Way,
    plan_jobs,
    plan_plain,
    summarise,
)
from distill.evaluation.scores import score_students
from distill.evaluation.stated import protocol
from distill.evaluation.students import check_labels, grade_student, student_load
from distill.evaluation.tuning import choose_ways, describe_ways, with_ways
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.context import Context
from distill.run.engines import Load
from distill.sets.cost import count_bytes
from distill.sets.set_file import MEASURED, read_set
from distill.store.jsonl import append_sealed, from_row, read_sealed
from distill.teachers.loading import (
    has_committee,
    load_committee,
    load_projector,
    projector_sizes,
)


def judge(
    context: Context,
    table: EvaluateTable,
    path: Path,
    log: Path,
    stated: Mapping[str, Way] | None = None,
) -> dict[str, Any]:
    """Train and test all students; returns what `distill evaluate --json` prints.

    Args:
        context: data, device, seeds, engine; committee and projector of its run label.
        table: [evaluate] of its recipe: students, seeds, labels and their training.
        path: the set.h5 to evaluate.
        log: a file of finished jobs, read before and appended to after each job.
        stated: ways of training by kind, which are not searched for again.
    """
    path = path.resolve()
    judged, projector_bytes = open_judged(context, path)
    check_labels(table, judged)
    if "projector" in table.labels and judged.open_projector is not None:
        _ = judged.online  # fails here, not hours later, if the projector cannot be read
    base = plan_jobs(
        table.students,
        table.seeds,
        table.labels,
        judged.available,
        judged.labellers,
        table.whole_seeds,
    )
    reported = {job.labels for job in base if job.group == STUDENTS}
    counted = count_bytes(judged.content, projector_bytes, reported)
    evaluation = Evaluation(context, path, log)
    equal = None
    if table.equal_bytes:
        measure = evaluation.measure
        equal = choose_controls(context, table, base, counted, judged.content, measure)
    jobs = base + ([] if equal is None else equal.jobs(base))
    plain = plan_plain(base) if table.scores else []
    ways = choose_ways(table, jobs, evaluation.measure, stated or {})
    jobs, plain = with_ways(jobs, ways), with_ways(plain, ways)
    graded = evaluation.measure("evaluate", jobs + plain)
    measured = dict(_accuracies(graded))
    result = summarise((job, measured[job]) for job in jobs)
    confusion = sum_confusions(graded[: len(jobs)])
    result |= {"confusion": confusion} if confusion else {}
    result |= {"bytes": counted, "protocol": protocol(context, table, judged)}
    add_balanced(result, graded, context.data.test.labels)
    if ways:
        tuned = describe_ways(table, ways, len(context.data.validation))
        result["protocol"]["tuned"] = tuned
    if equal is not None:
        equal.describe(result, graded, context, table)
    if table.scores:
        result["scores"] = score_students(result, summarise((job, measured[job]) for job in plain))
    return result


@dataclass(frozen=True)
class Evaluation:
    """Measures jobs on the set at `path`, with a `log` of those that are finished."""

    context: Context
    path: Path
    log: Path

    def measure(self, task: str, jobs: Sequence[StudentJob]) -> list[tuple[StudentJob, Grade]]:
        """The grade of each job, in the order of the jobs."""
        context, known = self.context, _read(self.log)
        done = [job for job in jobs if job.name in known]
        for job in done:
            _row(context, job, known[job.name].accuracy)
        waiting = [job for job in jobs if job.name not in known]
        with context.progress.task(task, len(jobs), len(done)) as advance:
            for job, value in context.map(partial(_grade, self.path), waiting, self._load):
                known[job.name] = value
                _row(context, job, value.accuracy)
                append_sealed(self.log, {"job": job.name, **asdict(value)})
                advance(f"{job.group} {job.student} {job.labels}: {value.accuracy:.3f}")
        return [(job, known[job.name]) for job in jobs]

    def _load(self, job: StudentJob) -> Load:
        judged, _ = open_judged(self.context, self.path)
        return student_load(self.context, self.context.recipe.table("evaluate"), judged, job)


def _grade(path: Path, context: Context, job: StudentJob) -> Grade:
    """Train and test the student of a job on the set at `path`."""
    judged, _ = open_judged(context, path)
    return grade_student(context, context.recipe.table("evaluate"), judged, job)


def _row(context: Context, job: StudentJob, accuracy: float) -> None:
    if job.trial:
        return
    context.log(
        "evaluate",
        group=job.group,
        student=job.student,
        labels=job.labels,
        seed=job.seed,
        accuracy=accuracy,
    )


def _accuracies(graded: Sequence[tuple[StudentJob, Grade]]) -> list[tuple[StudentJob, float]]:
    return [(job, result.accuracy) for job, result in graded]


def _read(log: Path) -> dict[str, Grade]:
    grades = {}
    for row in read_sealed(log):
        try:
            name = str(row.pop("job"))
            grades[name] = from_row(Grade, row)
        except (KeyError, ValueError):
            continue
    return grades


def open_judged(context: Context, path: Path) -> tuple[EvaluatedSet, tuple[int, int]]:
    """The set at `path` with the committee and projector of the context's run, opened once.

    Returns:
        The set to evaluate, and the projector's bytes: shipped, and to be fetched elsewhere.

    Raises:
        WorkError: if the set was made from other data, or the projector's folder is damaged.
    """
    path = path.resolve()
    return context.once("judged", partial(_open_judged, context, path), path)


def _open_judged(context: Context, path: Path) -> tuple[EvaluatedSet, tuple[int, int]]:
    content = read_set(path, (MEASURED,))
    data = content.manifest["source"]["digest"]
    if data != context.data.digest:
        raise WorkError(
            f"{path} was made from other data than {context.data.source} holds now; "
            "name those that it was made from with --data"
        )
    size = projector_sizes(context)
    committee = load_committee(context) if has_committee(context) else None
    relabel = context.recipe.relabel or RelabelTable()
    opened = None if size is None else partial(load_projector, context)
    sizes = (0, 0) if size is None else (size.shipped, size.external)
    return EvaluatedSet(content, committee, opened, relabel), sizes
