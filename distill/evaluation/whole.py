"""A set is evaluated by itself, and the accuracies that it states are verified."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import DivergedRunError, InterruptedRunError, WorkError
from distill.evaluation.results import judge
from distill.recipes.checks import check_names, check_networks
from distill.recipes.loading import check_recipe, with_evaluation
from distill.run.context import scratch_context
from distill.run.engines import Engine
from distill.run.interrupt import listen
from distill.sets.set_file import add_measured, read_set, set_path


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
    if engine is not None:
        engine.get_ready()
    place = set_path(path)
    content = read_set(place)
    if not content.manifest["source"]["digest"]:
        raise WorkError(
            f"{place} was imported without the real data that students are tested on; import it "
            "again with --data"
        )
    recipe = with_evaluation(
        check_recipe(content.manifest["recipe"], f"recipe of {place}"), changes
    )
    check_names(recipe)
    within = place.parent if engine is not None and engine.shared else None
    with tempfile.TemporaryDirectory(dir=within) as scratch, listen() as stop:
        context = scratch_context(Path(scratch), place.parent, recipe, device, quiet, stop)
        context.engine = engine or context.engine
        check_networks(recipe, context.data)
        try:
            log = Path(scratch) / "jobs.jsonl"
            found = judge(context, recipe.table("evaluate"), place, log)
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
