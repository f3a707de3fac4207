"""Evaluates a set outside its run, and verifies the accuracies that it states."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.data import RealData
from distill.errors import DivergedRunError, InterruptedRunError, RecipeError, WorkError
from distill.evaluation.incremental import judge_steps
from distill.evaluation.results import judge, open_judged
from distill.evaluation.sweep.log import sweep_key
from distill.evaluation.tuning import TRIED, stated_ways
from distill.machine import cache_folder
from distill.recipes.build import with_augmentation, with_place
from distill.recipes.checks import check_names, check_networks
from distill.recipes.loading import check_recipe, with_evaluation
from distill.run.artefacts import PROJECTOR
from distill.run.context import Context
from distill.run.engines import Engine
from distill.run.folder import versions
from distill.run.interrupt import listen
from distill.run.scratch import scratch_context
from distill.sets.additions import add_measured
from distill.sets.set_file import MEASURED, SetFile, read_set, set_path
from distill.store.files import digest_json, digest_tree
from distill.store.jsonl import read_sealed

# To be raised when the accuracy of a student changes, so that older ones are not taken.
_VERSION = 1


def evaluate_set(
    path: Path,
    changes: dict[str, Any],
    device: str | None,
    quiet: bool,
    engine: Engine | None = None,
    *,
    record: bool = False,
    place: str | None = None,
    anew: bool = False,
    steps: int | None = None,
) -> Any:
    """Evaluate a set outside its run; returns what `distill evaluate --json` prints.

    Args:
        path: set.h5, or the folder of a run; committee and projector are looked for beside it.
        changes: keys of the recipe's [evaluate] table to replace, and data.augmentation as
            "augmentation".
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.
        engine: where students are trained; None for this process.
        record: store the result in the set.
        place: where the real data lie now, a path or a source; None for where the recipe says.
        anew: choose the ways of training again, whatever the set states of them. So do changes of
            the protocol, or of what is tried.
        steps: groups in which classes arrive, see `judge_steps`; None for all at once.

    Students that are finished when it is interrupted are kept among the user's caches; the same
    evaluation goes on from them, and removes them.

    Raises:
        LimbeckError: of the fitting kind.
    """
    if steps is not None:
        _check_steps(changes, record=record)
    if engine is not None:
        engine.get_ready()
    set_file = set_path(path)
    told = anew or not changes.keys().isdisjoint(("protocol", *TRIED))
    # What was measured states ways of training, unless these are told or chosen anew.
    content = read_set(set_file, (MEASURED,) if told else ())
    _check_source(content, set_file)
    stated = {} if told else stated_ways(content.measured)
    recipe = check_recipe(content.manifest["recipe"], f"recipe of {set_file}")
    if "augmentation" in changes:
        recipe = with_augmentation(recipe, changes["augmentation"])
    others = {key: value for key, value in changes.items() if key != "augmentation"}
    recipe = with_place(with_evaluation(recipe, others), place, set_file.parent)
    check_names(recipe, only=("evaluate",))
    within = set_file.parent if engine is not None and engine.shared else None
    with tempfile.TemporaryDirectory(dir=within) as scratch, listen() as stop:
        context = scratch_context(Path(scratch), set_file.parent, recipe, device, quiet, stop)
        context.normalise_as(content.preprocess)
        context.engine = engine or context.engine
        check_networks(recipe, _data(context, place), only=("evaluate",))
        log = _log_of(context, set_file, Path(scratch), stated)
        if "labels" in changes:
            _say_left_out(context, set_file)
        table = context.recipe.table("evaluate")
        try:
            if steps is None:
                evaluation = judge(context, table, set_file, log, stated)
            else:
                evaluation = judge_steps(context, table, set_file, log, steps, stated)
        except InterruptedRunError:
            kept = len(read_sealed(log)) if log.parent != Path(scratch) else 0
            raise InterruptedRunError(
                f"interrupted; the finished students ({kept}) are kept in {log}: run the same "
                "command to go on"
                if kept
                else "interrupted; nothing was kept: run the same command again"
            ) from None
        except FloatingPointError as error:
            raise DivergedRunError(f"evaluate diverged: {error}") from None
        if record:
            add_measured(set_file, evaluation)
        log.unlink(missing_ok=True)
        return evaluation


def _check_source(content: SetFile, set_file: Path) -> None:
    """Raise WorkError for a set that states no real data."""
    source = content.manifest["source"]
    if not source["digest"]:
        done = "merge" if "merged" in source else "import"
        raise WorkError(
            f"{set_file} was {done.rstrip('e')}ed without the real data that students are tested "
            f"on; {done} it again with --data"
        )


def _check_steps(changes: Mapping[str, object], *, record: bool) -> None:
    """Raise RecipeError for what an evaluation by steps does not measure."""
    others = {
        "equal_bytes": "--equal-bytes",
        "scores": "--scores",
        "whole_epochs": "--whole-epochs",
        "whole_seeds": "--whole-epochs",
    }
    asked = [option for key, option in others.items() if key in changes]
    asked += ["--record"] if record else []
    if asked:
        raise RecipeError(
            f"--steps trains students on the set and on random images, by hard and learned labels, "
            f"and stores nothing; leave out {asked[0]}, or --steps"
        )


def _say_left_out(context: Context, set_file: Path) -> None:
    """Name the label sources that were asked for and are not there, if others are."""
    judged, _ = open_judged(context, set_file)
    labels = context.recipe.table("evaluate").labels
    missing = [source for source in labels if source not in judged.available]
    if missing and len(missing) < len(labels):
        context.progress.say(
            f"note: labels {', '.join(missing)} are left out: beside {set_file} there are "
            f"{', '.join(judged.available)}"
        )


def _log_of(context: Context, set_file: Path, scratch: Path, stated: Mapping[str, object]) -> Path:
    """The file of finished students: one that outlives an interruption, where there may be one.

    Its name is a digest of all that decides their accuracies.
    """
    folder = cache_folder("evaluations")
    if folder is None:
        return scratch / "jobs.jsonl"
    projector = context.run.path / PROJECTOR
    key = {
        "evaluation": sweep_key(context, set_file, _VERSION),
        "ways": {kind: str(way) for kind, way in stated.items()},
        "projector": digest_tree(projector) if projector.exists() else None,
        "device": context.device.type,
        "versions": versions(),
    }
    log = folder / f"{digest_json(key)}.jsonl"
    if log.is_file():
        context.progress.say(f"evaluate: finished students of an interrupted one are in {log}")
    return log


def _data(context: Context, place: str | None) -> RealData:
    """The real data; the error where they are gone says how to name their place."""
    try:
        return context.data
    except WorkError as error:
        if place is not None:
            raise
        raise WorkError(f"{error}; if they lie elsewhere now, name the place with --data") from None


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
    path: Path,
    tolerance: float,
    device: str | None,
    quiet: bool,
    engine: Engine | None = None,
    *,
    place: str | None = None,
) -> list[Claim]:
    """Train the students of a set's stored accuracy again, as they were, without controls.

    A claim holds within `tolerance`, or within three standard errors of the stored mean where
    these are wider.

    Raises:
        WorkError: if the set stores no accuracy.
    """
    set_file = set_path(path)
    measured = read_set(set_file).measured
    if not measured:
        raise WorkError(
            f"{set_file} states no accuracy; store one with `distill evaluate --record`"
        )
    sources = {name: None for entries in measured["students"].values() for name in entries}
    stated = measured["protocol"]
    changes = {
        "students": list(measured["students"]),
        "labels": list(sources),
        "seeds": stated["seeds"],
        "epochs": stated["hard"]["epochs"],
        "whole_seeds": 0,
        "equal_bytes": False,
        "scores": False,
    }
    if isinstance(stated["hard"].get("views"), str):
        changes["augmentation"] = stated["hard"]["views"]
    students = evaluate_set(path, changes, device, quiet, engine, place=place)["students"]
    claims = []
    for student, entries in measured["students"].items():
        for labels, stats in entries.items():
            error = stats["std"] / len(stats["runs"]) ** 0.5
            again = students[student].get(labels)
            now = None if again is None else again["mean"]
            claims.append(Claim(student, labels, stats["mean"], now, max(tolerance, 3 * error)))
    return claims
