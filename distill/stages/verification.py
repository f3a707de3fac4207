"""Whether the folder of a run is as the run left it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import LimbeckError
from distill.recipes.loading import check_recipe
from distill.run.artefacts import (
    CHECKPOINTS,
    EVALUATE_STAGE,
    EVALUATION,
    MANIFEST,
    MANIFEST_COPY,
    METRICS,
    REPORT,
    SECONDS,
    SUMMARY,
    VOTES,
)
from distill.run.folder import LOCK, Run, summary_of
from distill.run.manifest import is_sealed, is_whole, read_manifest
from distill.stages.loading import planned
from distill.stages.pipeline import changed_outputs
from distill.store.documents import read_json
from distill.store.files import digest_file
from distill.store.jsonl import read_sealed
from distill.store.seals import fits, page_fits
from distill.store.tensors import load_tensors


@dataclass(frozen=True)
class RunState:
    """What a look at all files of a run found.

    Attributes:
        finished: its stages that are finished.
        missing: stages of its recipe that are not.
        changed: file -> what to do, for each that is not as the run left it.
        unchecked: files that hold no digest, as they were written before there were any.
        beside: files and folders that no finished stage left, such as sweeps; never looked at.
    """

    finished: list[str]
    missing: list[str]
    changed: dict[str, str]
    unchecked: list[str]
    beside: list[str]

    def sentence(self) -> str:
        """What is intact, what was not checked, and what is still to be made."""
        parts = [f"every output is as the run left it: {', '.join(self.finished) or 'none yet'}"]
        if self.missing:
            parts.append(f"not made yet: {', '.join(self.missing)}")
        if self.unchecked:
            parts.append(f"without a digest, so not checked: {', '.join(self.unchecked)}")
        if self.beside:
            parts.append(f"left by no finished stage, so not checked: {', '.join(self.beside)}")
        return "; ".join(parts)


def look_at(folder: Path) -> RunState:
    """Check every file of a run, checkpoints too, but how long a stopped stage has taken.

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
    elif os.path.lexists(folder / REPORT):
        changed[REPORT] = "it is no file: remove it"
    changed |= dict.fromkeys(_damaged_memory(folder), "it is made again when the run goes on")
    missing = [name for name in stages_of(manifest["recipe"]) if name not in stages]
    unchecked = list(dict.fromkeys(unchecked))
    return RunState(list(stages), missing, changed, unchecked, _beside(folder, stages))


def _damaged_memory(folder: Path) -> list[str]:
    """What only a run that goes on reads, and would leave aside: by paths in its folder."""
    copy, votes = folder / MANIFEST_COPY, folder / VOTES
    damaged = [] if not copy.is_file() or is_whole(copy) else [copy]
    if votes.is_file() and not _fits(_read_json(votes)):
        damaged.append(votes)
    damaged += [
        path
        for path in sorted((folder / CHECKPOINTS).glob("*/*"))
        if path.name != SECONDS and not _is_whole_part(path)
    ]
    return [str(path.relative_to(folder)) for path in damaged]


def _is_whole_part(path: Path) -> bool:
    """Whether a file of a checkpoint fits its digest, each row its own."""
    try:
        if path.suffix == ".jsonl":
            return len(read_sealed(path)) == len(path.read_bytes().splitlines())
        if path.suffix == ".h5":
            stated = load_tensors(path.with_suffix(".safetensors"))
            return stated is not None and stated[1] == digest_file(path)
        return load_tensors(path) is not None
    except OSError:
        return False


def _fits(value: Any) -> bool:
    """Whether a JSON value is an object, and what it was when it was written."""
    return isinstance(value, dict) and fits(value) is not False


def _beside(folder: Path, stages: Mapping[str, Any]) -> list[str]:
    """Files and folders of a run's folder that are no part of what was checked."""
    outputs = {name.partition(":")[0] for entry in stages.values() for name in entry["outputs"]}
    known = {LOCK, MANIFEST, MANIFEST_COPY, METRICS, SUMMARY, REPORT, VOTES, CHECKPOINTS, *outputs}
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


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
