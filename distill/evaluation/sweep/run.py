"""Run a sweep: resumable, with the same numbers on any engine."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from distill.errors import DivergedRunError, InterruptedRunError
from distill.evaluation.jobs import STUDENTS, StudentJob
from distill.evaluation.students import EvaluatedSet, protocol, student_load
from distill.evaluation.sweep.jobs import (
    HARD,
    Outcome,
    SweepJob,
    SweepOptions,
    as_rows,
    curve,
    plan_sweep,
)
from distill.evaluation.sweep.plot import draw_curves
from distill.evaluation.sweep.work import random_file, train_and_test
from distill.recipes.checks import check_names, check_networks
from distill.recipes.loading import check_recipe, with_evaluation
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import COMMITTEE
from distill.run.context import Context, scratch_context
from distill.run.engines import Engine, Load
from distill.run.interrupt import listen
from distill.run.progress import Advance
from distill.sets.set_file import SetFile, read_set, set_path, write_set
from distill.store.files import digest_file, digest_json, write_json
from distill.store.jsonl import append_lines, read_lines
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
    key = _key(context, set_file, table)
    _make_random(context, content, folder, table.seeds, key, labelled=labelled)
    outcomes = _read(folder / LOG, key)
    left = [job for job in jobs if job.name not in outcomes]
    train = partial(train_and_test, set_file.resolve(), folder.resolve())
    judged = EvaluatedSet(content)

    def load(job: SweepJob) -> Load:
        labels = "hard" if job.codec == HARD else "votes"
        return student_load(
            context, table, judged, StudentJob(STUDENTS, job.student, labels, job.seed)
        )

    with context.progress.task("sweep", len(jobs), len(jobs) - len(left)) as advance:
        for job, outcome in context.map(train, left, load):
            outcomes[job.name] = outcome
            append_lines(folder / LOG, [{"key": key, "job": job.name, **asdict(outcome)}])
            _report(advance, job, outcome)
    points = curve(jobs, outcomes)
    result = {
        "set": content.manifest["source"]["name"],
        "points": as_rows(points),
        "protocol": protocol(context, table, judged),
    }
    write_json(folder / TABLE, result)
    draw_curves(points, folder / PLOT)
    return result


def _key(context: Context, set_file: Path, table: EvaluateTable) -> str:
    """Digest of all that decides an outcome, besides the job itself."""
    committee = context.run.path / COMMITTEE
    evaluate = table.model_dump(mode="json", exclude={"students", "seeds", "labels"})
    relabel = context.recipe.relabel
    return digest_json(
        {
            "version": _VERSION,
            "set": digest_file(set_file),
            "committee": digest_file(committee) if committee.is_file() else None,
            "data": context.data.digest,
            "seed": context.recipe.seed,
            "evaluate": evaluate,
            "relabel": None if relabel is None else relabel.model_dump(mode="json"),
        }
    )


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
    ipc = len(content.images) // context.classes
    generator = context.generator("evaluate", "random images", seed)
    images, labels = context.random_real(ipc, generator)
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


def _report(advance: Advance, job: SweepJob, outcome: Outcome) -> None:
    size = outcome.payload + outcome.views
    advance(f"{job.images} {job.codec} {job.student}: {outcome.accuracy:.3f} at {size:,} bytes")


def _read(log: Path, key: str) -> dict[str, Outcome]:
    """Outcomes by job; rows of other sweeps are left out."""
    outcomes = {}
    for row in read_lines(log):
        try:
            name, of = row.pop("job"), row.pop("key")
            if of == key:
                outcomes[str(name)] = Outcome(**row)
        except (KeyError, TypeError):
            continue
    return outcomes


def sweep_set(
    path: Path,
    options: SweepOptions,
    changes: dict[str, Any],
    out: Path,
    *,
    engine: Engine,
    device: str | None,
    quiet: bool,
) -> Any:
    """Train students on a set under every codec; returns what `distill sweep --json` prints.

    Args:
        path: set.h5, or the folder of a run; the committee is looked for beside it.
        options: codecs and controls.
        changes: keys of the recipe's [evaluate] table to replace.
        out: folder of the sweep.
        engine: where students are trained.
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.
    """
    engine.get_ready()
    set_file = set_path(path)
    recipe = check_recipe(read_set(set_file).manifest["recipe"], f"recipe of {set_file}")
    recipe = with_evaluation(recipe, changes)
    if device is not None:
        recipe = recipe.model_copy(update={"device": device})
    check_names(recipe)
    out.mkdir(parents=True, exist_ok=True)
    within = out if engine.shared else None
    with tempfile.TemporaryDirectory(dir=within) as scratch, listen() as stop:
        context = scratch_context(Path(scratch), set_file.parent, recipe, device, quiet, stop)
        context.engine = engine
        check_networks(recipe, context.data)
        try:
            return run_sweep(context, set_file, out, options)
        except InterruptedRunError:
            raise InterruptedRunError(
                f"interrupted; what was measured is kept in {out}: run the same command to go on"
            ) from None
        except FloatingPointError as error:
            raise DivergedRunError(f"sweep diverged: {error}") from None
