"""manifest.json: what a run was asked for, and which stages it has finished.

It holds its own digest. A copy lies beside it, under a hidden name: a manifest that was damaged,
cut or lost costs no work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.errors import WorkError
from distill.run.artefacts import MANIFEST, MANIFEST_COPY
from distill.store.documents import read_json
from distill.store.files import refuse_links, write_json
from distill.store.seals import fits, sealed, unsealed


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of the run in `folder`, and its copy."""
    content = sealed(manifest)
    write_json(folder / MANIFEST, content)
    write_json(folder / MANIFEST_COPY, content)


def read_manifest(file: Path) -> dict[str, Any]:
    """Read a run's manifest.json, without its digest.

    Raises:
        WorkError: if it is missing, damaged or no manifest, or its folder holds a link that leads
            out of it.
    """
    refuse_links(file.parent)
    try:
        return _read(file)
    except WorkError as error:
        copy = _copy_of(file.parent)
        remedy = (
            f"its copy {copy} is whole: run the recipe again with --out {file.parent} to take it"
            if is_whole(copy)
            else "name the folder of a run"
        )
        raise WorkError(f"{error}; {remedy}") from None


def find_manifest(folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The manifest of a run that is to go on, from its copy where it is damaged or missing.

    Args:
        folder: of the run.
        say: is told where the copy is taken.

    Returns:
        The manifest; None where there is neither.

    Raises:
        WorkError: if it is damaged and there is no whole copy.
    """
    file, copy = folder / MANIFEST, _copy_of(folder)
    try:
        return _read(file) if file.is_file() or not copy.is_file() else _taken(file, copy, say)
    except _MissingError:
        return None
    except WorkError as error:
        if is_whole(copy):
            return _taken(file, copy, say)
        raise WorkError(
            f"{error}, and no whole copy of it is there: what lies beside it can still be shown, "
            "evaluated and exported, but this run cannot go on; name another folder for --out"
        ) from None


def is_sealed(file: Path) -> bool:
    """Whether a manifest that was read holds its own digest; older ones do not."""
    return fits(read_json(file)) is not None


class _MissingError(WorkError):
    """There is no manifest."""


def _copy_of(folder: Path) -> Path:
    return folder / MANIFEST_COPY


def _taken(file: Path, copy: Path, say: Callable[[str], None]) -> dict[str, Any]:
    manifest = _read(copy)
    say(f"{file} is damaged or missing; its copy {copy} takes its place")
    return manifest


def is_whole(file: Path) -> bool:
    """Whether a manifest, or the copy of one, can be read and is as the run left it."""
    try:
        return bool(_read(file))
    except WorkError:
        return False


def _read(file: Path) -> dict[str, Any]:
    try:
        manifest = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        raise _MissingError(f"{file} is not there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WorkError(f"{file} cannot be read ({error})") from None
    if not _is_manifest(manifest):
        raise WorkError(f"{file} is not a run's manifest")
    if fits(manifest) is False:
        raise WorkError(f"{file} is not as the run left it: its digest does not fit")
    return unsealed(manifest)


def _is_manifest(manifest: Any) -> bool:
    return (
        isinstance(manifest, dict)
        and all(isinstance(manifest.get(key), dict) for key in ("recipe", "stages"))
        and all(map(_is_entry, manifest["stages"].values()))
    )


def _is_entry(entry: Any) -> bool:
    """Whether a finished stage's entry has the fields that later runs read."""
    if not isinstance(entry, dict) or not isinstance(entry.get("outputs"), dict):
        return False
    numbers = [entry.get(name, 0) for name in ("seconds", "peak_memory_bytes")]
    return isinstance(entry.get("key"), str) and all(
        isinstance(number, int | float) and math.isfinite(number) for number in numbers
    )
