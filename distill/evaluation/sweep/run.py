"""Run a sweep: resumable, with the same numbers on any engine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distill.errors import DivergedRunError, InterruptedRunError
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import STUDENTS, StudentJob
from distill.evaluation.stated import protocol
from distill.evaluation.students import student_load
from distill.evaluation.sweep.images.options import ImageSweepOptions
from distill.evaluation.sweep.images.run import run_image_sweep
from distill.evaluation.sweep.jobs import (
    HARD,
    Outcome,
    SweepJob,
    SweepOptions,
    as_rows,
    curve,
    plan_sweep,
)
from distill.evaluation.sweep.log import JobLog, Work, sweep_key
from distill.evaluation.sweep.place import check_place
from distill.evaluation.sweep.plot import draw_curves
from distill.evaluation.sweep.work import random_file, train_and_test
from distill.recipes.checks import check_names, check_networks
from distill.recipes.loading import check_recipe, with_evaluation
from distill.recipes.tables.relabel import RelabelTable
from distill.run.context import Context
from distill.run.engines import Engine, Load
from distill.run.interrupt import listen
from distill.run.scratch import scratch_context
from distill.sets.set_file import SetFile, read_set, set_path, write_set
from distill.store.files import write_json
from distill.store.seals import sealed
from distill.teachers.loading import has_committee, load_committee
from distill.teachers.voting import vote_views
from synth.committee.vote import Committee
from synth.images import gather

LOG, TABLE, PLOT = "jobs.jsonl", "sweep.json", "curve.svg"

# To be raised when the result of a job changes, so that older rows are not reused.
_VERSION = 2


def run_sweep(
    context: Context, set_file: Path, folder: Path, options: SweepOptions
) -> dict[str, Any]:
    """Train all students of a sweep; writes its table and its plot, and returns the table.

    Args:
        context: data, device and engine; its recipe's [evaluate] table says how to train students.
        set_file: set.h5, with voted labels.
        folder: of the sweep; rows that it holds of the same sweep are not trained again.
        options: codecs and controls.
    """
    table = context.recipe.table("evaluate")
    content = read_set(set_file)
    labelled = has_committee(context)
    jobs = plan_sweep(options, table.students, table.seeds, labelled=labelled)
    key = sweep_key(context, set_file, _VERSION)
    _make_random(context, content, folder, table.seeds, key, labelled=labelled)
    judged = EvaluatedSet(content)

    def load(job: SweepJob) -> Load:
        labels = "hard" if job.codec == HARD else "votes"
        return student_load(
            context, table, judged, StudentJob(STUDENTS, job.student, labels, job.seed)
        )

    train = partial(train_and_test, set_file.resolve(), folder.resolve())
    work = Work(train, load, Outcome, _note)
    outcomes = JobLog(context, folder / LOG, key).results("sweep", jobs, work)
    points = curve(jobs, outcomes)
    result = {
        "set": content.manifest["source"]["name"],
        "points": as_rows(points),
        "protocol": protocol(context, table, judged),
    }
    write_json(folder / TABLE, sealed(result))
    draw_curves(points, folder / PLOT)
    return result


def _make_random(
    context: Context, content: SetFile, folder: Path, seeds: int, key: str, *, labelled: bool
) -> None:
    """Write the random real images of each seed, relabelled as the set was."""
    committee = load_committee(context) if labelled else None
    for seed in range(seeds):
        path = random_file(folder, seed)
        if path.is_file() and read_set(path).manifest["recipe_digest"] == key:
            continue
        write_set(path, _random_set(context, content, committee, seed, key))


def _random_set(
    context: Context, content: SetFile, committee: Committee | None, seed: int, key: str
) -> SetFile:
    generator = context.generator("evaluate", "random images", seed)
    images, labels = context.random_like(content.hard, generator)
    votes = None
    if committee is not None:
        table = context.recipe.relabel or RelabelTable()
        # Real images have the statistics that the teachers were trained on: no BSSL.
        votes = vote_views(context, table, committee, images, batch_statistics=False)
    manifest = {**content.manifest, "factor": 1, "recipe_digest": key}
    return replace(
        content,
        images=gather(images).cpu(),
        hard=labels.cpu(),
        manifest=manifest,
        learned=None,
        refined=None,
        votes=votes,
        measured=None,
        encoded={},
    )


def _note(job: SweepJob, outcome: Outcome) -> str:
    size = outcome.payload + outcome.views
    return f"{job.images} {job.codec} {job.student}: {outcome.accuracy:.3f} at {size:,} bytes"


def sweep_set(
    path: Path,
    options: SweepOptions | ImageSweepOptions,
    changes: dict[str, Any],
    out: Path,
    *,
    engine: Engine,
    device: str | None,
    quiet: bool,
) -> Any:
    """Train students on a set under every codec, or under every way to keep its images.

    Returns what `distill sweep --json` prints.

    Args:
        path: set.h5, or the folder of a run; the committee is looked for beside it.
        options: what is compared.
        changes: keys of the recipe's [evaluate] table to replace.
        out: folder of the sweep.
        engine: where students are trained.
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.
    """
    engine.get_ready()
    set_file = set_path(path)
    content = read_set(set_file)
    recipe = check_recipe(content.manifest["recipe"], f"recipe of {set_file}")
    recipe = with_evaluation(recipe, changes)
    if device is not None:
        recipe = recipe.model_copy(update={"device": device})
    check_names(recipe, only=("evaluate",))
    check_place(out)
    out.mkdir(parents=True, exist_ok=True)
    within = out if engine.shared else None
    with tempfile.TemporaryDirectory(dir=within) as scratch, listen() as stop:
        context = scratch_context(Path(scratch), set_file.parent, recipe, device, quiet, stop)
        context.normalise_as(content.preprocess)
        context.engine = engine
        check_networks(recipe, context.data, only=("evaluate",))
        try:
            if isinstance(options, ImageSweepOptions):
                return run_image_sweep(context, set_file, out, options)
            return run_sweep(context, set_file, out, options)
        except InterruptedRunError:
            raise InterruptedRunError(
                f"interrupted; what was measured is kept in {out}: run the same command to go on"
            ) from None
        except FloatingPointError as error:
            raise DivergedRunError(f"sweep diverged: {error}") from None
