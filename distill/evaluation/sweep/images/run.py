"""Run a sweep over ways to keep images: resumable, with the same numbers on any engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distill.evaluation.coded import own_way
from distill.evaluation.equal_bytes import coded_protocol
from distill.evaluation.jobs import CODED, STUDENTS, WHOLE, StudentJob
from distill.evaluation.stated import protocol
from distill.evaluation.students import student_load
from distill.evaluation.sweep.images.controls import Controls
from distill.evaluation.sweep.images.jobs import (
    STORED,
    ImageJob,
    ImageOutcome,
    ImagePoint,
    as_rows,
    budgets,
    image_curve,
    plan_image_sweep,
    with_gains,
)
from distill.evaluation.sweep.images.kept import make_kept
from distill.evaluation.sweep.images.options import ImageSweepOptions, complete, label_source
from distill.evaluation.sweep.images.plot import draw_image_curves
from distill.evaluation.sweep.images.table import table_lines
from distill.evaluation.sweep.images.work import Budget, judged_set, train_kept
from distill.evaluation.sweep.log import JobLog, Work, sweep_key
from distill.run.context import Context
from distill.run.engines import Load
from distill.sets.cost import count_bytes
from distill.sets.order import first_places
from distill.sets.set_file import SetFile, read_set
from distill.store.files import digest_json, write_json, write_text

LOG, RESULT, PLOT, TABLE = "image-jobs.jsonl", "images.json", "images.svg", "images.md"

# To be raised when the result of a job changes, so that older rows are not reused.
_VERSION = 1

# Keys of [evaluate] that decide no result but that of jobs which name them.
_ELSEWHERE = ("whole_epochs", "lr_factors")


def run_image_sweep(
    context: Context, set_file: Path, folder: Path, options: ImageSweepOptions
) -> dict[str, Any]:
    """Train all students of a sweep; writes its JSON, table and picture, and returns the former.

    Args:
        context: data, device and engine; its recipe's [evaluate] table says how to train students.
        set_file: set.h5.
        folder: of the sweep; rows that it holds of the same sweep are not trained again.
        options: codings, numbers of images, labels and controls.
    """
    table = context.recipe.table("evaluate")
    content = read_set(set_file)
    options = complete(context, content, options)
    most = int(content.hard.bincount().max())
    jobs = plan_image_sweep(options, most, table.students, table.seeds)
    key = digest_json(
        [
            sweep_key(context, set_file, _VERSION, _ELSEWHERE),
            # Its coder decides how many bytes images take.
            coded_protocol(context, table, None),
        ]
    )
    make_kept(context, content, folder, jobs, key)
    log = JobLog(context, folder / LOG, key)
    train = partial(train_kept, set_file.resolve(), folder.resolve())
    work = Work(train, partial(_load, context, content), ImageOutcome, _note)
    points = image_curve(jobs, log.results("sweep", jobs, work))
    controls = Controls(log, set_file.resolve(), content)
    coded = controls.coded(_budgets(content, points, options))
    points = with_gains(points, coded)
    result = {
        "set": content.manifest["source"]["name"],
        "points": as_rows(points),
        "controls": {CODED: coded, WHOLE: controls.whole()},
        "protocol": {
            **protocol(context, table, judged_set(context, content)),
            "images": "the first of each class, in the set's order",
            CODED: coded_protocol(context, table, own_way(content)),
        },
    }
    write_json(folder / RESULT, result)
    write_text(folder / TABLE, "\n".join(table_lines(result)) + "\n")
    draw_image_curves(result, folder / PLOT)
    return result


def _budgets(
    content: SetFile, points: Sequence[ImagePoint], options: ImageSweepOptions
) -> list[Budget]:
    """The bytes at which coded real images are trained on; they may be kept as a point there is."""
    counted = count_bytes(content)
    shared = counted["preprocess"] + counted["settings"]
    found = []
    for size in budgets(points, options.controls):
        coding = min(point.coding for point in points if point.bytes == size)
        own = own_way(content) if coding == STORED else (coding, content.factor)
        found.append(Budget(size, shared, own))
    return found


def _load(context: Context, content: SetFile, job: ImageJob) -> Load:
    part = replace(content, hard=content.hard[first_places(content.hard, job.ipc)])
    student = StudentJob(STUDENTS, job.student, label_source(job.labels), job.seed)
    table = context.recipe.table("evaluate")
    return student_load(context, table, judged_set(context, part), student)


def _note(job: ImageJob, outcome: ImageOutcome) -> str:
    return (
        f"{job.coding} {job.ipc} a class {job.labels} {job.student}: {outcome.accuracy:.3f} at "
        f"{outcome.bytes:,} bytes"
    )
