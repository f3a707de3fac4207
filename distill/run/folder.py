"""A run: a folder with a manifest, artefacts, metrics and a lock."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from distill.errors import RecipeError, WorkError
from distill.run.artefacts import CHECKPOINTS, GIVEN_DATA, METRICS, SECONDS, SUMMARY
from distill.run.manifest import find_manifest, write_manifest
from distill.store.documents import read_json
from distill.store.files import (
    digest_json,
    open_beside,
    refuse_links,
    remove,
    write_json,
    write_text,
)
from distill.store.jsonl import append_lines, read_lines

LOCK = ".lock"

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
        manifest: what manifest.json says.
        read_only: whether another process owns the folder, and this one writes nothing.
        timer: of the running stage; saved whenever metrics are written.
        hear: is called with the rows of metrics that are new.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any] | None = None,
        *,
        read_only: bool = False,
        lock: int | None = None,
    ) -> None:
        self._path, self._lock = path, lock
        self.manifest = manifest or {"recipe": {}, "stages": {}}
        self.read_only = read_only
        self.timer: StageTimer | None = None
        self.hear: Callable[[Sequence[Mapping[str, Any]]], None] = lambda rows: None

    @property
    def path(self) -> Path:
        """The folder.

        Raises:
            WorkError: if it was moved or removed since it was opened: writing would begin another.
        """
        self.check_place()
        return self._path

    def check_place(self) -> None:
        """Raise WorkError where the folder was moved or removed since it was opened."""
        if self._lock is not None and not _is_same(self._path / LOCK, self._lock):
            raise WorkError(
                f"{self._path} was moved or removed while the run was writing into it; what was "
                "done lies where it is now: run the same command with --out naming that folder"
            )

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.path / CHECKPOINTS

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
        write_manifest(self.path, self.manifest)

    def append_metrics(self, rows: list[dict[str, Any]], *, again: bool = False) -> None:
        """Append rows to metrics.jsonl; `again`, if they stood there before an interruption."""
        if self.read_only or not rows:
            return
        append_lines(self.path / METRICS, rows)
        if not again:
            self.hear(rows)
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

    def digest_metrics(self, stage: str) -> str:
        """Digest of a stage's rows."""
        return digest_json([row for row in self.read_metrics() if row.get("stage") == stage])

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl; a last line cut short by a crash is left out."""
        return read_lines(self.path / METRICS)


@contextmanager
def open_run(
    path: Path, recipe: Mapping[str, Any], say: Callable[[str], None] = lambda line: None
) -> Iterator[Run]:
    """Open or create the run folder `path` for a recipe, and hold its lock.

    Args:
        path: the folder.
        recipe: the resolved recipe, as plain values.
        say: is told where the copy of a damaged manifest is taken.

    Raises:
        WorkError: if another process uses the folder, it cannot be written, or it holds a link
            that leads out of it.
        RecipeError: if the folder holds something else, or a run of another recipe.
    """
    refuse_links(path)
    _read_own_manifest(path, recipe)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open_beside(path / LOCK)
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
        old = _read_own_manifest(path, recipe, say)
        for leftover in _leftovers(path):
            remove(leftover)
        run = Run(path, old or {"format": 1, "stages": {}}, lock=lock.fileno())
        run.manifest["recipe"] = dict(recipe)
        run.manifest["versions"] = versions()
        run.save()
        yield run


def _is_same(path: Path, opened: int) -> bool:
    """Whether a path leads to a file that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(opened))
    except OSError:
        return False


def _read_own_manifest(
    path: Path, recipe: Mapping[str, Any], say: Callable[[str], None] = lambda line: None
) -> dict[str, Any] | None:
    """The manifest of a folder that this recipe may use, or None where it has none yet."""
    if path.exists() and not path.is_dir():
        raise RecipeError(f"--out {path} is a file; name a folder for the run")
    old = find_manifest(path, say)
    if old is None:
        foreign = _foreign(path)
        if foreign:
            raise RecipeError(
                f"--out {path} holds files that are not a run's ({foreign[0].name}); "
                "name a new or empty folder"
            )
        return None
    if old["recipe"].get("name") != recipe.get("name"):
        name = str(old["recipe"].get("name"))
        raise RecipeError(
            f"--out {path} holds a run of recipe {name}, not {recipe.get('name')}; to go on with "
            f"what it has, add --set name={quote(name)}, or name another folder"
        )
    return old


def _foreign(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    own = {path / LOCK, path / GIVEN_DATA, *_leftovers(path)}
    return sorted(entry for entry in path.iterdir() if entry not in own)


def _leftovers(path: Path) -> list[Path]:
    """Temporary files of a process that was killed while it wrote."""
    patterns = (".*.tmp", ".projector.*", f"{CHECKPOINTS}/*/.*.tmp")
    return [file for pattern in patterns for file in path.glob(pattern)]


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
        seconds = float(read_json(path))
    except (OSError, ValueError, TypeError, RecursionError):
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


def summary_of(manifest: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The content of summary.json: the evaluation with each stage's seconds and peak memory."""
    stages = {
        name: {field: entry.get(field, 0) for field in ("seconds", "peak_memory_bytes")}
        for name, entry in manifest["stages"].items()
    }
    return {**evaluation, "stages": stages}


def write_summary(run: Run, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Write summary.json."""
    summary = summary_of(run.manifest, evaluation)
    write_json(run.path / SUMMARY, summary)
    return summary
