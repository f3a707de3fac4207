"""A whole run, and an evaluation by itself, as the commands ask for them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.build import choose_device
from distill.checks import check_data, check_names, check_networks
from distill.context import Context
from distill.data import DataError, SourceError
from distill.data.torchvision_sets import download
from distill.engines import Engine
from distill.errors import DivergedRunError, InterruptedRunError, RecipeError, WorkError
from distill.interrupt import Stop, listen
from distill.pipeline import check_stages, run_stages
from distill.progress import Progress
from distill.ranks import joined
from distill.recipe import check_recipe
from distill.reporting import FILE as REPORT
from distill.reporting import write_report
from distill.stages.committee import FILE as COMMITTEE
from distill.stages.encode import encode_content
from distill.stages.evaluate import FILE as EVALUATION
from distill.stages.evaluate import STAGE as EVALUATE
from distill.stages.evaluate import judge
from distill.stages.match import follow_match
from distill.stages.pretrained import fetch_weights
from distill.stages.project import FOLDER as PROJECTOR
from distill.stages.synthetic import set_path
from distill.stages.votes import FILE as VOTES
from distill.store.run import MANIFEST, Run, open_run, read_manifest
from distill.store.sets import add_encoded, add_measured, read_set, write_set
from distill.summary import FILE as SUMMARY
from distill.summary import write_summary
from distill.sweep.jobs import Asked
from distill.sweep.run import run_sweep
from distill.tables import EncodeTable, ExpertsTable, Recipe


def run_recipe(
    recipe: Recipe,
    out: Path,
    stages: Sequence[str] = (),
    *,
    quiet: bool = False,
    engine: Engine | None = None,
    reuse: Sequence[Path] = (),
) -> Path | None:
    """Run a recipe's stages into the folder `out`; returns the report if there is one.

    Args:
        recipe: the resolved recipe.
        out: the run's folder.
        stages: names; empty for all.
        quiet: show no progress.
        engine: where independent work is done; None for this process.
        reuse: folders of other runs, whose experts and committees are taken where they fit.

    Raises:
        LimbeckError: of the kind that fits; the folder can be gone on with.
    """
    # Whatever can be refused is refused here, before the folder is touched.
    check_names(recipe)
    check_stages(recipe, stages)
    for other in reuse:
        read_manifest(other / MANIFEST)
    device = choose_device(recipe.device)
    data = check_data(recipe)
    with joined(device, stages) as crew, listen() as stop:
        if crew is not None and not crew.leads:
            run = Run(out, {"recipe": {}, "stages": {}})
            context = Context(run, recipe, device, Progress(quiet=True), stop, crew=crew)
            context.data = data
            follow_match(context, crew)
            return None
        with open_run(out, recipe.model_dump(mode="json")) as run:
            context = Context(run, recipe, device, Progress(quiet=quiet), stop, crew=crew)
            context.engine = engine or context.engine
            context.data = data
            context.reuse = tuple(reuse)
            return _run_stages(context, stages)


def _run_stages(context: Context, stages: Sequence[str]) -> Path | None:
    """Run stages, or all; returns the report if the run has been evaluated."""
    run = context.run
    try:
        run_stages(context, stages or None)
    except InterruptedRunError:
        raise InterruptedRunError(
            f"interrupted; what was done is kept in {run.path}: run the same command to go on"
        ) from None
    if EVALUATE not in run.manifest["stages"]:
        return None
    evaluation = json.loads((run.path / EVALUATION).read_text(encoding="utf-8"))
    write_summary(context.run, evaluation)
    return write_report(run.path)


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
        "summary": json.loads(summary.read_text("utf-8")) if summary.is_file() else None,
        "report": str(report) if report.is_file() else None,
    }


def fetch_data(recipe: Recipe) -> None:
    """Fetch the files of the recipe's data and members where they can be downloaded.

    Raises:
        RecipeError: for an unknown set.
        WorkError: if they cannot be fetched.
    """
    try:
        download(recipe.data.source)
    except SourceError as error:
        raise RecipeError(f"data.source: {error}") from None
    except (DataError, OSError) as error:
        raise WorkError(f"data {recipe.data.source}: {error}") from None
    fetch_weights(recipe)


def evaluate_set(
    path: Path,
    changes: dict[str, Any],
    device: str | None,
    quiet: bool,
    engine: Engine | None = None,
    *,
    record: bool = False,
) -> Any:
    """Evaluate a set by itself; returns what `distill evaluate --json` prints.

    Args:
        path: set.h5, or the folder of a run; committee and projector are looked for beside it.
        changes: keys of the recipe's [evaluate] table to replace.
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.
        engine: where students are trained; None for this process.
        record: store what was found in the set.

    Raises:
        LimbeckError: of the kind that fits.
    """
    place = set_path(path)
    content = read_set(place)
    if not content.manifest["source"]["digest"]:
        raise WorkError(
            f"{place} was imported without the real data that students are tested on; import it "
            "again with --data"
        )
    recipe = _with_changes(check_recipe(content.manifest["recipe"], f"recipe of {place}"), changes)
    check_names(recipe)
    within = place.parent if engine is not None and engine.shared else None
    with tempfile.TemporaryDirectory(dir=within) as scratch, listen() as stop:
        context = _scratch_context(Path(scratch), place.parent, recipe, device, quiet, stop)
        context.engine = engine or context.engine
        check_networks(recipe, context.data)
        try:
            found = judge(context, place, Path(scratch) / "jobs.jsonl")
            if record:
                add_measured(place, found)
            return found
        except InterruptedRunError:
            raise InterruptedRunError(
                "interrupted; nothing was kept: run the same command again"
            ) from None
        except FloatingPointError as error:
            raise DivergedRunError(f"evaluate diverged: {error}") from None


@dataclass(frozen=True)
class Claim:
    """A stored accuracy and what was measured again; fractions.

    Attributes:
        student: network spec.
        labels: label source.
        stored: mean that the set states.
        now: mean of the students trained now, or None where its labels are not beside the set.
        allowed: difference that counts as the same.
    """

    student: str
    labels: str
    stored: float
    now: float | None
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the two agree, as far as this could be checked."""
        return self.now is None or abs(self.now - self.stored) <= self.allowed


def verify_accuracy(
    path: Path, tolerance: float, device: str | None, quiet: bool, engine: Engine | None = None
) -> list[Claim]:
    """Train the students of a set's stored accuracy again, as they were, without controls.

    A claim holds within `tolerance`, or within three standard errors of the stored mean where
    these are wider.

    Raises:
        WorkError: if the set stores no accuracy.
    """
    place = set_path(path)
    measured = read_set(place).measured
    if not measured:
        raise WorkError(f"{place} states no accuracy; store one with `distill evaluate --record`")
    sources = {name: None for found in measured["students"].values() for name in found}
    said = measured["protocol"]
    changes = {
        "students": list(measured["students"]),
        "labels": list(sources),
        "seeds": said["seeds"],
        "epochs": said["hard"]["epochs"],
        "whole_seeds": 0,
        "equal_bytes": False,
        "scores": False,
    }
    found = evaluate_set(path, changes, device, quiet, engine)["students"]
    claims = []
    for student, entries in measured["students"].items():
        for labels, stats in entries.items():
            error = stats["std"] / len(stats["runs"]) ** 0.5
            again = found[student].get(labels)
            now = None if again is None else again["mean"]
            claims.append(Claim(student, labels, stats["mean"], now, max(tolerance, 3 * error)))
    return claims


def encode_set(
    path: Path, choice: dict[str, Any], out: Path | None, device: str | None, quiet: bool
) -> Any:
    """Encode the votes of a set; returns what `distill encode --json` prints.

    Args:
        path: set.h5, or the folder of a run.
        choice: one key of the recipe's [encode] table.
        out: file for a copy of the set that has these labels instead of the full ones; None adds
            them to the set itself.
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.
    """
    place = set_path(path)
    content = read_set(place)
    recipe = check_recipe(content.manifest["recipe"], f"recipe of {place}")
    recipe = _with_changes(recipe, {})
    recipe = check_recipe({**recipe.model_dump(), "encode": choice}, "encode")
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = _scratch_context(Path(scratch), place.parent, recipe, device, quiet, stop)
        name, encoded, found = encode_content(context, content, _encode_table(recipe))
    if out is None:
        add_encoded(place, name, encoded)
    else:
        write_set(out, replace(content, votes=None, encoded={name: encoded}, measured=None))
    return {**found, "set": str(place if out is None else out)}


def sweep_set(
    path: Path,
    asked: Asked,
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
        asked: codecs and controls.
        changes: keys of the recipe's [evaluate] table to replace.
        out: folder of the sweep.
        engine: where students are trained.
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.
    """
    place = set_path(path)
    recipe = check_recipe(read_set(place).manifest["recipe"], f"recipe of {place}")
    recipe = _with_changes(recipe, changes)
    if device is not None:
        recipe = recipe.model_copy(update={"device": device})
    check_names(recipe)
    out.mkdir(parents=True, exist_ok=True)
    within = out if engine.shared else None
    with tempfile.TemporaryDirectory(dir=within) as scratch, listen() as stop:
        context = _scratch_context(Path(scratch), place.parent, recipe, device, quiet, stop)
        context.engine = engine
        check_networks(recipe, context.data)
        try:
            return run_sweep(context, place, out, asked)
        except InterruptedRunError:
            raise InterruptedRunError(
                f"interrupted; what was measured is kept in {out}: run the same command to go on"
            ) from None
        except FloatingPointError as error:
            raise DivergedRunError(f"sweep diverged: {error}") from None


def _encode_table(recipe: Recipe) -> EncodeTable:
    if recipe.encode is None:
        raise WorkError("the recipe has no [encode] table; add one")
    return recipe.encode


def _with_changes(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with other keys in its [evaluate] table."""
    table = {"students": [_first_network(recipe)]}
    if recipe.evaluate is not None:
        table = recipe.evaluate.model_dump()
    raw = {**recipe.model_dump(), "evaluate": {**table, **changes}}
    return check_recipe(raw, "evaluate")


def _first_network(recipe: Recipe) -> str:
    """A student for a set whose recipe names none: a network that it was made with."""
    if recipe.experts is not None:
        return recipe.experts.network
    return recipe.committee.members[0] if recipe.committee else ExpertsTable().network


def _scratch_context(
    scratch: Path, folder: Path, recipe: Recipe, device: str | None, quiet: bool, stop: Stop
) -> Context:
    """A context that reads artefacts from `folder` and leaves no trace in it."""
    run = Run(scratch, {"recipe": {}, "stages": {}})
    for name in (COMMITTEE, VOTES, PROJECTOR):
        if (folder / name).exists():
            (scratch / name).symlink_to((folder / name).resolve())
    return Context(run, recipe, choose_device(device or recipe.device), Progress(quiet=quiet), stop)
