"""The folder of a sweep: only files that a sweep wrote are written over."""

from __future__ import annotations

from pathlib import Path

from distill.errors import WorkError
from distill.sets.set_file import SET_KIND
from distill.store.documents import read_json
from distill.store.files import refuse_links
from distill.store.hdf5 import read_kind
from distill.store.jsonl import read_lines

# What is drawn, and the table that it is drawn from, which is written before.
_DRAWN = {"curve.svg": "sweep.json", "images.svg": "images.json", "images.md": "images.json"}

_PATTERNS = ("*jobs.jsonl", "sweep.json", "images.json", "random-*.h5", "kept-*.h5", *_DRAWN)


def check_place(folder: Path) -> None:
    """Refuse a folder where a sweep would write over, or append to, what no sweep wrote.

    Raises:
        WorkError: if there is such a file, or a link that leads out of the folder.
    """
    refuse_links(folder)
    for pattern in _PATTERNS:
        for path in sorted(folder.glob(pattern)):
            if not _is_own(path):
                raise WorkError(
                    f"--out {folder} holds {path.name}, which no sweep wrote or which is damaged; "
                    "name another folder, or remove it"
                )


def _is_own(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        if path.name in _DRAWN:
            return path.with_name(_DRAWN[path.name]).is_file()
        if path.suffix == ".h5":
            return read_kind(path) == SET_KIND
        if path.suffix == ".json":
            return "points" in read_json(path)
        # The first row may have been cut short.
        begun = path.read_bytes().count(b"\n") == 0
        return begun or any({"key", "job"} <= row.keys() for row in read_lines(path))
    except (OSError, ValueError, TypeError, RecursionError, WorkError):
        return False
