"""Run an evaluation job by job; what was measured before an interruption is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import projectors
from distill.errors import WorkError
from distill.evaluation.confusion import Grade, sum_confusions
from distill.evaluation.jobs import (
    EQUAL_BYTES,
    WHOLE,
    StudentJob,
    choose_factors,
    plan_equal_bytes,
    plan_jobs,
    plan_plain,
    plan_trials,
    summarise,
    with_factors,
)
from distill.evaluation.scores import score_students
from distill.evaluation.students import EvaluatedSet, protocol, train_student
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import PROJECTOR
from distill.run.context import Context
from distill.sets.set_file import SetFile, read_set
from distill.sets.votes import view_bytes
from distill.store.hdf5 import smallest_unsigned
from distill.store.jsonl import append_lines, read_lines
from distill.teachers.loading import has_committee, load_committee
from projectors import Projector


def judge(context: Context, table: EvaluateTable, path: Path, log: Path) -> dict[str, Any]:
    """Train and test all students; returns what `distill evaluate --json` prints.

    Args:
        context: data, device, seeds, engine; committee and projector of its run label.
        table: [evaluate] of its recipe: students, seeds, labels and their training.
        path: the set.h5 that is judged.
        log: a file of finished jobs, read before and appended to after each job.
    """
    path = path.resolve()
    judged, projector_bytes = open_judged(context, path)
    if "projector" in table.labels and judged.open_projector is not None:
        _ = judged.online  # a projector that cannot be read is missed here, not hours later
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
    evaluation = Evaluation(context, path, log)
    factors: dict[str, float] = {}
    if table.lr_factors:
        trials = plan_trials(jobs, table.lr_factors)
        factors = choose_factors(_accuracies(evaluation.measure("choose lr", trials)))
    jobs, plain = with_factors(jobs, factors), with_factors(plain, factors)
    graded = evaluation.measure("evaluate", jobs + plain)
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
class Evaluation:
    """Where jobs are measured: the set at `path`, and a `log` of those that are finished."""

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
        if not context.engine.here:
            # The longest first, so that no worker is left alone with one at the end.
            waiting.sort(key=lambda job: job.group != WHOLE)
        with context.progress.task(task, len(jobs), len(done)) as advance:
            for job, value in context.map(partial(_grade, self.path), waiting):
                known[job.name] = value
                append_lines(self.log, [{"job": job.name, **asdict(value)}])
                _row(context, job, value.accuracy)
                advance(f"{job.group} {job.student} {job.labels}: {value.accuracy:.3f}")
        return [(job, known[job.name]) for job in jobs]


def _grade(path: Path, context: Context, job: StudentJob) -> Grade:
    """Train and test the student of a job on the set at `path`."""
    judged, _ = open_judged(context, path)
    return train_student(context, context.recipe.table("evaluate"), judged, job)


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
    found = {}
    for row in read_lines(log):
        try:
            found[str(row["job"])] = Grade(float(row["accuracy"]), row["confusion"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def open_judged(context: Context, path: Path) -> tuple[EvaluatedSet, tuple[int, int]]:
    """The set at `path` with the committee and projector of the context's run, opened once.

    Returns:
        What is judged, and the projector's bytes: shipped, and to be fetched elsewhere.

    Raises:
        WorkError: if the set was made from other data, or the projector's folder is damaged.
    """
    return context.once("judged", partial(_open_judged, context, path), path)


def _open_judged(context: Context, path: Path) -> tuple[EvaluatedSet, tuple[int, int]]:
    content = read_set(path)
    data = content.manifest["source"]["digest"]
    if data != context.data.digest:
        raise WorkError(
            f"{path} was made from other data than {context.data.source} holds now; "
            "evaluate it with the data it was made from"
        )
    folder = context.run.path / PROJECTOR
    there = folder.is_dir()
    committee = load_committee(context) if has_committee(context) else None
    relabel = context.recipe.relabel or RelabelTable()
    opened = partial(_load_projector, context, folder) if there else None
    return EvaluatedSet(content, committee, opened, relabel), _sizes(folder) if there else (0, 0)


def _load_projector(context: Context, folder: Path) -> Projector:
    with _named(folder):
        projector = projectors.load(folder, classes=context.data.class_names)
    return projector.to(context.device)


def _sizes(folder: Path) -> tuple[int, int]:
    with _named(folder):
        size = projectors.projector_bytes(folder)
    return size.shipped, size.external


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except projectors.ProjectorError as error:
        raise WorkError(f"projector {folder}: {error}") from None
