"""Run an evaluation job by job; what was measured before an interruption is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distill.context import Context
from distill.evaluation.jobs import Job, plan_jobs, summarise
from distill.evaluation.students import Judged, protocol, train_student
from distill.store.files import write_text
from distill.store.sets import SetFile, smallest_unsigned
from distill.tables import EvaluateTable


def evaluate(
    context: Context,
    table: EvaluateTable,
    judged: Judged,
    projector_bytes: tuple[int, int],
    log: Path,
) -> dict[str, Any]:
    """Train and test all students; returns what `distill evaluate --json` prints.

    Args:
        context: data, device, seeds.
        table: students, seeds, labels and their training.
        judged: the set and its label sources.
        projector_bytes: bytes shipped, and bytes to fetch elsewhere.
        log: a file of finished jobs, read before and appended to after each job.
    """
    jobs = plan_jobs(
        table.students,
        table.seeds,
        table.labels,
        judged.available,
        judged.labellers,
        table.whole_seeds,
    )
    known = _read(log)
    done = [job for job in jobs if job.name in known]
    for job in done:
        _row(context, job, known[job.name])
    with context.progress.task("evaluate", len(jobs), len(done)) as advance:
        for job in jobs:
            if job.name in known:
                continue
            known[job.name] = train_student(context, table, judged, job)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"job": job.name, "accuracy": known[job.name]}) + "\n")
            _row(context, job, known[job.name])
            advance(f"{job.group} {job.student} {job.labels}: {known[job.name]:.3f}")
    return {
        **summarise((job, known[job.name]) for job in jobs),
        "bytes": count_bytes(judged.content, projector_bytes),
        "protocol": protocol(context, table, judged),
    }


def count_bytes(content: SetFile, projector: tuple[int, int]) -> dict[str, Any]:
    """Bytes that a receiver needs, uncompressed as stored.

    `labels` is all label data in the file; `sources` says what each label source needs of it.
    """
    classes = len(content.manifest["class_names"])
    sources = {"hard": content.hard.numel() * smallest_unsigned(classes).itemsize}
    if content.learned is not None:
        sources["learned"] = content.learned.numel() * 4
    if content.votes is not None:
        votes = content.votes
        id_bytes = smallest_unsigned(votes.ids.shape[1]).itemsize
        halves = votes.views.numel() + votes.logits.numel()
        sources["votes"] = votes.ids.numel() * id_bytes + halves * 2
    whitening = content.whitening
    matrices = () if whitening is None else (whitening.mean, whitening.transform, whitening.inverse)
    return {
        "images": content.images.numel() * 4,
        "preprocess": sum(part.numel() * 4 for part in matrices),
        "labels": sum(sources.values()),
        "projector": projector[0],
        "external": projector[1],
        "sources": sources,
    }


def _row(context: Context, job: Job, accuracy: float) -> None:
    context.log(
        "evaluate",
        group=job.group,
        student=job.student,
        labels=job.labels,
        seed=job.seed,
        accuracy=accuracy,
    )


def _read(log: Path) -> dict[str, float]:
    if not log.is_file():
        return {}
    found = {}
    text = log.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        # The last line of a killed run is cut short; the next row must not be glued to it.
        write_text(log, text + "\n")
    for line in text.splitlines():
        try:
            row = json.loads(line)
            found[str(row["job"])] = float(row["accuracy"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
