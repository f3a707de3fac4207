"""A run of a recipe, from checks to the report."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from distill.data import DataError, RealData, SourceError
from distill.data.sources.hugging_face import fetch_hugging_face
from distill.data.sources.torchvision_sets import download
from distill.errors import InterruptedRunError, RecipeError, WorkError
from distill.recipes.build import choose_device
from distill.recipes.checks import check_data, check_names, missing_packages
from distill.recipes.compiling import resolve_compile
from distill.recipes.schema import Recipe
from distill.recipes.slow_precision import capabilities, precision_note
from distill.recipes.weak_towers import tower_note
from distill.report.writing import write_report
from distill.run.artefacts import (
    COMMITTEE_STAGE,
    EVALUATE_STAGE,
    EVALUATION,
    MANIFEST,
    PROJECT_STAGE,
    REFINE_STAGE,
    REPORT,
    SUMMARY,
)
from distill.run.context import Context
from distill.run.engines import Engine
from distill.run.engines.process_group import joined
from distill.run.folder import Run, open_run, write_summary
from distill.run.interrupt import listen
from distill.run.loggers import listening
from distill.run.manifest import find_manifest, read_manifest
from distill.run.progress import Progress
from distill.sets.towers import check_tower, fetch_tower
from distill.stages.given_experts import check_given
from distill.stages.loading import check_stages, planned
from distill.stages.match.stage import follow_match
from distill.stages.pipeline import run_stages
from distill.stages.search import resolve_budget
from distill.store.documents import read_json
from distill.teachers.inspection import inspect_teachers
from distill.teachers.pretrained import fetch_weights

# Seconds after which it is said how data are read faster.
_LONG_READING = 5.0


def run_recipe(
    recipe: Recipe,
    out: Path,
    stages: Sequence[str] = (),
    *,
    quiet: bool = False,
    engine: Engine | None = None,
    reuse: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Path | None:
    """Run a recipe's stages into the folder `out`; returns the report if there is one.

    Args:
        recipe: the resolved recipe.
        out: the run's folder.
        stages: names; empty for all.
        quiet: show no progress.
        engine: where independent work is done; None for this process.
        reuse: folders of other runs, whose experts and committees are reused where they fit, and
            experts.h5 files of other programs' experts.
        progress: how far it is, and loggers; None shows that on standard error, unless quiet.

    Raises:
        LimbeckError: of the fitting kind; the run can be resumed.
    """
    # Everything is checked before the folder is touched.
    check_names(recipe)
    check_stages(recipe, stages)
    manifest = find_manifest(out, lambda line: None) or {"recipe": {}, "stages": {}}
    _check_packages(recipe, stages, manifest["stages"])
    _check_towers(recipe, stages, manifest["stages"])
    for other in reuse:
        check_given(other)
    if engine is not None:
        engine.get_ready()
    device = choose_device(recipe.device)
    progress, earlier = progress or Progress(quiet=quiet), dict(manifest["recipe"])
    data = _read_data(recipe, device, progress)
    with listen() as stop:
        recipe = resolve_budget(recipe, data, earlier, progress.say, stop)
    recipe = resolve_compile(recipe, data, device, earlier, progress.say)
    with joined(device, stages) as group, listen() as stop:
        if group is not None and not group.leads:
            run = Run(out, read_only=True)
            context = Context(run, recipe, device, Progress(quiet=True), stop, group=group)
            context.data = data
            follow_match(context, group)
            return None
        with open_run(out, recipe.model_dump(mode="json"), progress.say) as run:
            context = Context(run, recipe, device, progress, stop, group=group)
            context.engine = engine or context.engine
            context.data = data
            context.reuse = tuple(reuse)
            resolved = run.manifest["recipe"]
            with listening(progress.loggers, run.path, resolved, progress.say) as run.hear:
                return _run_stages(context, stages)


def _read_data(recipe: Recipe, device: torch.device, progress: Progress) -> RealData:
    """The recipe's data, checked; what there is to say of them, and of the recipe, is said."""
    started = time.monotonic()
    data = check_data(recipe)
    seconds = time.monotonic() - started
    notes = [
        *data.notes,
        tower_note(recipe, data.channels),
        precision_note(recipe, device, capabilities()),
    ]
    if seconds > _LONG_READING and not recipe.data.source.startswith("packed:"):
        notes.append(
            f"reading {recipe.data.source} took {seconds:.0f} s, as it will in every command; "
            "`distill pack` decodes pictures once"
        )
    for note in filter(None, notes):
        progress.say(f"note: {note}")
    return data


def _check_packages(recipe: Recipe, stages: Sequence[str], finished: Collection[str]) -> None:
    """Raise WorkError where a stage that is to be done needs a package that is not installed."""
    missing = missing_packages(recipe, _to_do(recipe, stages, finished))
    if missing:
        raise WorkError(missing[0])


def _check_towers(recipe: Recipe, stages: Sequence[str], finished: Collection[str]) -> None:
    """Raise WorkError where the tower of a stage that is to be done cannot be had."""
    to_do = _to_do(recipe, stages, finished)
    for stage, key, table in (
        (PROJECT_STAGE, "projector.tower", recipe.projector),
        (REFINE_STAGE, "refine.tower", recipe.refine),
    ):
        if table is not None and stage in to_do:
            check_tower(key, table.tower, recipe.seed)


def _to_do(recipe: Recipe, stages: Sequence[str], finished: Collection[str]) -> set[str]:
    """The stages that are asked for and are not done."""
    asked = {stage.name for stage in planned(recipe) if not stages or stage.name in stages}
    return asked - set(finished)


def _run_stages(context: Context, stages: Sequence[str]) -> Path | None:
    """Run stages, or all; returns the report if the run has been evaluated."""
    run = context.run
    try:
        _inspect(context, stages)
        run_stages(context, stages or None)
    except InterruptedRunError:
        raise InterruptedRunError(
            f"interrupted; what was done is kept in {run.path}: run the same command to go on"
        ) from None
    if EVALUATE_STAGE not in run.manifest["stages"]:
        return None
    evaluation = read_json(run.path / EVALUATION)
    write_summary(context.run, evaluation)
    return write_report(run.path, data=context.data, tell=context.progress.say)


def _inspect(context: Context, stages: Sequence[str]) -> None:
    """Look at teachers that come trained, unless the stage committee is done, or not asked for."""
    table = context.recipe.committee
    done = COMMITTEE_STAGE in context.run.manifest["stages"]
    if table is not None and not done and (not stages or COMMITTEE_STAGE in stages):
        inspect_teachers(context, table)


def run_outcome(out: Path) -> dict[str, Any]:
    """What a run's folder holds, in plain values.

    Returns:
        `out`, the seconds of each finished `stages`, `summary` (None before an evaluation) and
        `report` (its path, or None).
    """
    run = read_manifest(out / MANIFEST)
    summary, report = out / SUMMARY, out / REPORT
    return {
        "out": str(out),
        "stages": {name: entry["seconds"] for name, entry in run["stages"].items()},
        "summary": read_json(summary) if summary.is_file() else None,
        "report": str(report) if report.is_file() else None,
    }


def fetch_data(recipe: Recipe) -> None:
    """Fetch the files of the recipe's data, members and tower where they can be downloaded.

    Raises:
        RecipeError: for an unknown set.
        WorkError: if they cannot be fetched.
    """
    try:
        download(recipe.data.source)
        fetch_hugging_face(recipe.data.source)
    except SourceError as error:
        raise RecipeError(f"data.source: {error}") from None
    except (DataError, OSError) as error:
        raise WorkError(f"data {recipe.data.source}: {error}") from None
    fetch_weights(recipe)
    if recipe.projector is not None:
        fetch_tower(recipe.projector.tower, recipe.seed)
