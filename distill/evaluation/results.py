"""Run an evaluation job by job; what was measured before an interruption is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.context import Context
from distill.evaluation.confusion import Grade, sum_confusions
from distill.evaluation.desk import Desk, open_desk
from distill.evaluation.jobs import (
    EQUAL_BYTES,
    WHOLE,
    Job,
    choose_factors,
    plan_equal_bytes,
    plan_jobs,
    plan_plain,
    plan_trials,
    summarise,
    with_factors,
)
from distill.evaluation.scores import score_students
from distill.evaluation.students import Judged, protocol, train_student
from distill.store.hdf5 import smallest_unsigned
from distill.store.lines import append_rows, read_rows
from distill.store.sets import SetFile
from distill.store.voted import view_bytes
from distill.tables import EvaluateTable


def evaluate(
    context: Context,
    table: EvaluateTable,
    judged: Judged,
    projector_bytes: tuple[int, int],
    log: Path,
    desk: Desk,
) -> dict[str, Any]:
    """Train and test all students; returns what `distill evaluate --json` prints.

    Args:
        context: data, device, seeds, engine.
        table: students, seeds, labels and their training.
        judged: the set and its label sources.
        projector_bytes: bytes shipped, and bytes to fetch elsewhere.
        log: a file of finished jobs, read before and appended to after each job.
        desk: from which worker processes open the same things.
    """
    counted = count_bytes(judged.content, projector_bytes)
    base = plan_jobs(
        table.students,
        table.seeds,
        table.labels,
        judged.available,
        judged.labellers,
        table.whole_seeds,
    )
    ipc = equal_bytes_ipc(judged.content, counted, context.split("train")[1])
    jobs = base + (plan_equal_bytes(base, ipc) if table.equal_bytes else [])
    plain = plan_plain(base) if table.scores else []
    bench = Bench(context, table, judged, log, desk)
    factors: dict[str, float] = {}
    if table.lr_factors:
        trials = plan_trials(jobs, table.lr_factors)
        factors = choose_factors(_accuracies(bench.measure("choose lr", trials)))
    jobs, plain = with_factors(jobs, factors), with_factors(plain, factors)
    graded = bench.measure("evaluate", jobs + plain)
    measured = dict(_accuracies(graded))
    found = summarise((job, measured[job]) for job in jobs)
    confusion = sum_confusions(graded[: len(jobs)])
    found |= {"confusion": confusion} if confusion else {}
    found |= {"bytes": counted, "protocol": protocol(context, table, judged)}
    if factors:
        found["protocol"]["lr_factors"] = {
            "tried": table.lr_factors,
            "chosen": factors,
            "on": f"{len(context.data.validation)} validation images, one student of each kind",
        }
    for sources in found["controls"].get(EQUAL_BYTES, {}).values():
        for source, stats in sources.items():
            stats["images"] = ipc[source] * context.classes
    if table.scores:
        found["scores"] = score_students(found, summarise((job, measured[job]) for job in plain))
    return found


@dataclass(frozen=True)
class Bench:
    """Where jobs are measured: here, or by the engine; finished ones are remembered."""

    context: Context
    table: EvaluateTable
    judged: Judged
    log: Path
    desk: Desk

    def measure(self, task: str, jobs: Sequence[Job]) -> list[tuple[Job, Grade]]:
        """The grade of each job, in the order of the jobs."""
        known = _read(self.log)
        done = [job for job in jobs if job.name in known]
        for job in done:
            _row(self.context, job, known[job.name].accuracy)
        waiting = [job for job in jobs if job.name not in known]
        with self.context.progress.task(task, len(jobs), len(done)) as advance:
            for job, value in self._results(waiting):
                known[job.name] = value
                append_rows(self.log, [{"job": job.name, **asdict(value)}])
                _row(self.context, job, value.accuracy)
                advance(f"{job.group} {job.student} {job.labels}: {value.accuracy:.3f}")
        return [(job, known[job.name]) for job in jobs]

    def _results(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Grade]]:
        # The longest first, so that no worker is left alone with one at the end.
        order = sorted(jobs, key=lambda job: job.group != WHOLE)
        context = self.context
        yield from context.share(
            jobs if context.engine.here else order, self._here, partial(open_desk, self.desk)
        )

    def _here(self) -> Callable[[Job], Grade]:
        return partial(train_student, self.context, self.table, self.judged)


def equal_bytes_ipc(
    content: SetFile, counted: dict[str, Any], train_labels: Tensor
) -> dict[str, int]:
    """Real images per class in the bytes of the set, by label source.

    A real image takes a byte for each pixel of each channel, and its class. A class with fewer
    training images ends the count.

    Args:
        content: the set.
        counted: what `count_bytes` gave for it.
        train_labels: [m] classes of the real images.
    """
    classes = len(content.manifest["class_names"])
    one = content.images[0].numel() + smallest_unsigned(classes).itemsize
    most = int(torch.bincount(train_labels, minlength=classes).min())
    shared = counted["images"] + counted["preprocess"]
    budgets = {source: shared + own for source, own in counted["sources"].items()}
    budgets["projector"] = shared + counted["projector"]
    return {source: max(1, min(b // one // classes, most)) for source, b in budgets.items()}


def count_bytes(content: SetFile, projector: tuple[int, int]) -> dict[str, Any]:
    """Bytes that a receiver needs, uncompressed as stored.

    `labels` is all label data in the file; `sources` says what each label source needs of it.
    """
    classes = len(content.manifest["class_names"])
    sources = {"hard": content.hard.numel() * smallest_unsigned(classes).itemsize}
    if content.learned is not None:
        sources["learned"] = content.learned.numel() * 4
    if content.votes is not None:
        sources["votes"] = math.prod(content.votes.logits.shape) * 2 + view_bytes(content.votes)
    for name, encoded in content.encoded.items():
        views = encoded.view_bytes(len(content.seen_hard))
        sources[name] = len(encoded.payload) + views
    whitening = content.whitening
    matrices = () if whitening is None else (whitening.mean, whitening.transform, whitening.inverse)
    return {
        "images": math.prod(content.images.shape) * 4,
        "preprocess": sum(part.numel() * 4 for part in matrices),
        "labels": sum(sources.values()),
        "projector": projector[0],
        "external": projector[1],
        "sources": sources,
    }


def _row(context: Context, job: Job, accuracy: float) -> None:
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


def _accuracies(graded: Sequence[tuple[Job, Grade]]) -> list[tuple[Job, float]]:
    return [(job, result.accuracy) for job, result in graded]


def _read(log: Path) -> dict[str, Grade]:
    found = {}
    for row in read_rows(log):
        try:
            found[str(row["job"])] = Grade(float(row["accuracy"]), row["confusion"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
