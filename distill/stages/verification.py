"""Whether the folder of a run is as the run left it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import LimbeckError
from distill.recipes.loading import check_recipe
from distill.run.artefacts import EVALUATE_STAGE, EVALUATION, MANIFEST, METRICS, REPORT, SUMMARY
from distill.run.folder import Run, summary_of
from distill.run.manifest import is_sealed, read_manifest
from distill.stages.loading import planned
from distill.stages.pipeline import changed_outputs
from distill.store.documents import read_json
from distill.store.seals import page_fits


@dataclass(frozen=True)
class RunState:
    """What a look at all files of a run found.

    Attributes:
        finished: its stages that are finished.
        missing: stages of its recipe that are not.
        changed: file -> what to do, for each that is not as the run left it.
        unchecked: files that hold no digest, as they were written before there were any.
    """

    finished: list[str]
    missing: list[str]
    changed: dict[str, str]
    unchecked: list[str]

    def sentence(self) -> str:
        """What is intact, what was not checked, and what is still to be made."""
        parts = [f"every output is as the run left it: {', '.join(self.finished) or 'none yet'}"]
        if self.missing:
            parts.append(f"not made yet: {', '.join(self.missing)}")
        if self.unchecked:
            parts.append(f"without a digest, so not checked: {', '.join(self.unchecked)}")
        return "; ".join(parts)


def look_at(folder: Path) -> RunState:
    """Check every file of a run but its checkpoints, which are checked when they are loaded.

    Raises:
        WorkError: if its manifest is damaged or missing.
    """
    manifest = read_manifest(folder / MANIFEST)
    stages = manifest["stages"]
    changed = dict.fromkeys(changed_outputs(folder, stages), "run the recipe again to remake it")
    unchecked = [] if is_sealed(folder / MANIFEST) else [MANIFEST]
    rows = Run(folder, manifest)
    for name, entry in stages.items():
        if "metrics" not in entry:
            unchecked.append(METRICS)
        elif rows.digest_metrics(name) != entry["metrics"]:
            changed[f"{METRICS} of {name}"] = "only curves of the report are drawn from it"
    if EVALUATE_STAGE in stages and EVALUATION not in changed:
        evaluation = _read_json(folder / EVALUATION)
        if _read_json(folder / SUMMARY) != summary_of(manifest, evaluation):
            changed[SUMMARY] = "run the recipe again to remake it"
    if (folder / REPORT).is_file():
        page = page_fits((folder / REPORT).read_text(encoding="utf-8", errors="replace"))
        if page is None:
            unchecked.append(REPORT)
        elif not page:
            changed[REPORT] = f"make it again with `distill report {folder}`"
    missing = [name for name in stages_of(manifest["recipe"]) if name not in stages]
    return RunState(list(stages), missing, changed, list(dict.fromkeys(unchecked)))


def _read_json(path: Path) -> Any:
    """A JSON file's value; None where it is missing or damaged."""
    try:
        return read_json(path)
    except (OSError, ValueError, RecursionError):
        return None


def stages_of(recipe: dict[str, Any]) -> list[str]:
    """The stages that a recipe asks for; none where this program does not know the recipe."""
    try:
        return [stage.name for stage in planned(check_recipe(recipe, "run"))]
    except LimbeckError:
        return []
