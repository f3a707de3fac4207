"""A run: a folder with a manifest, artefacts, metrics and a lock."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.errors import RecipeError, WorkError
from distill.run.artefacts import MANIFEST, METRICS, SECONDS, SUMMARY
from distill.store.documents import read_json
from distill.store.files import remove, write_json, write_text
from distill.store.jsonl import append_lines, read_lines

_VERSIONED = (
    "limbeck",
    "torch",
    "torchvision",
    "open-clip-torch",
    "peft",
    "higher",
    "h5py",
    "numpy",
)


class Run:
    """An open run folder. Made by `open_run`, which holds its lock.

    Attributes:
        path: the folder.
        manifest: what manifest.json says.
        read_only: whether another process owns the folder, and this one writes nothing.
        timer: of the running stage; saved whenever metrics are written.
    """

    def __init__(
        self, path: Path, manifest: dict[str, Any] | None = None, *, read_only: bool = False
    ) -> None:
        self.path = path
        self.manifest = manifest or {"recipe": {}, "stages": {}}
        self.read_only = read_only
        self.timer: StageTimer | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.path / "checkpoints"

    def checkpoint_folder(self, stage: str, key: str) -> Path:
        """A stage's checkpoint folder for one key; those of other keys are deleted."""
        folder = self.checkpoints / f"{stage}-{key[:16]}"
        if self.read_only:
            return folder
        if self.checkpoints.is_dir():
            for other in self.checkpoints.glob(f"{stage}-*"):
                if other != folder:
                    remove(other)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def record_stage(self, name: str, entry: Mapping[str, Any]) -> None:
        """Write a finished stage into the manifest."""
        self.manifest["stages"][name] = dict(entry)
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path / MANIFEST, self.manifest)

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to metrics.jsonl."""
        if self.read_only or not rows:
            return
        append_lines(self.path / METRICS, rows)
        if self.timer is not None:
            self.timer.note()

    def keep_metrics(self, stage: str, first: int = 0) -> None:
        """Drop a stage's rows, except the first ones."""
        if self.read_only:
            return
        rows, kept, left = self.read_metrics(), [], first
        for row in rows:
            own = row.get("stage") == stage
            if not own or left > 0:
                kept.append(row)
            left -= own
        write_text(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in kept))

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl; a last line cut short by a crash is left out."""
        return read_lines(self.path / METRICS)


@contextmanager
def open_run(path: Path, recipe: Mapping[str, Any]) -> Iterator[Run]:
    """Open or create the run folder `path` for a recipe, and hold its lock.

    Raises:
        WorkError: if another process uses the folder, or it cannot be written.
        RecipeError: if the folder holds something else, or a run of another recipe.
    """
    _read_own_manifest(path, recipe)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise WorkError(f"--out {path} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WorkError(
                f"--out {path} is in use by another process; wait for it or name another folder"
            ) from None
        # Read again: another process may have finished between the check and the lock.
        old = _read_own_manifest(path, recipe)
        for leftover in _leftovers(path):
            remove(leftover)
        run = Run(path, old or {"format": 1, "stages": {}})
        run.manifest["recipe"] = dict(recipe)
        run.manifest["versions"] = versions()
        run.save()
        yield run


def _read_own_manifest(path: Path, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of a folder that this recipe may use, or None where it has none yet."""
    if path.exists() and not path.is_dir():
        raise RecipeError(f"--out {path} is a file; name a folder for the run")
    if not (path / MANIFEST).is_file():
        foreign = _foreign(path)
        if foreign:
            raise RecipeError(
                f"--out {path} holds files that are not a run's ({foreign[0].name}); "
                "name a new or empty folder"
            )
        return None
    old = read_manifest(path / MANIFEST)
    if old["recipe"].get("name") != recipe.get("name"):
        raise RecipeError(
            f"--out {path} holds a run of recipe {old['recipe'].get('name')}, not "
            f"{recipe.get('name')}; name another folder"
        )
    return old


def _foreign(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    own = {path / ".lock", *_leftovers(path)}
    return sorted(entry for entry in path.iterdir() if entry not in own)


def _leftovers(path: Path) -> list[Path]:
    """Temporary files of a process that was killed while it wrote."""
    patterns = (".*.tmp", ".projector.*", "checkpoints/*/.*.tmp")
    return [file for pattern in patterns for file in path.glob(pattern)]


def read_manifest(file: Path) -> dict[str, Any]:
    """Read a run's manifest.json.

    Raises:
        WorkError: if it is missing or is not a manifest.
    """
    try:
        manifest = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise WorkError(f"{file} cannot be read ({error}); name the folder of a run") from None
    if not isinstance(manifest, dict) or not all(
        isinstance(manifest.get(key), dict) for key in ("recipe", "stages")
    ):
        raise WorkError(f"{file} is not a run's manifest; name the folder of a run")
    if not all(map(_is_entry, manifest["stages"].values())):
        raise WorkError(f"{file} is not a run's manifest; name the folder of a run")
    return manifest


def _is_entry(entry: Any) -> bool:
    """Whether a finished stage's entry has the fields that later runs read."""
    if not isinstance(entry, dict) or not isinstance(entry.get("outputs"), dict):
        return False
    numbers = [entry.get(name, 0) for name in ("seconds", "peak_memory_bytes")]
    return isinstance(entry.get("key"), str) and all(
        isinstance(number, int | float) and math.isfinite(number) for number in numbers
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    installed = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


class StageTimer:
    """Counts a stage's seconds, and saves them in a folder: a process may be killed at any time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SECONDS
        self._before = _read_seconds(self._path)
        self._started = self._noted = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far, with those of earlier processes."""
        return self._before + time.monotonic() - self._started

    def note(self, at_most_every: float = 1.0) -> None:
        """Save the count, unless it was saved less than `at_most_every` seconds ago."""
        now = time.monotonic()
        if now - self._noted >= at_most_every:
            write_json(self._path, self.seconds)
            self._noted = now


def _read_seconds(path: Path) -> float:
    """The saved count; 0 where it is missing or invalid."""
    try:
        seconds = float(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


def write_summary(run: Run, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Write summary.json: the evaluation with each stage's seconds and peak memory."""
    stages = {
        name: {field: entry[field] for field in ("seconds", "peak_memory_bytes")}
        for name, entry in run.manifest["stages"].items()
    }
    summary = {**evaluation, "stages": stages}
    write_json(run.path / SUMMARY, summary)
    return summary
