"""Limbeck's application: recipes, data, runs, evaluation and the command `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.sets.compress import Compressed
    from distill.sets.dataset import DistilledSet


__all__ = ["compress", "load"]


def load(path: str | Path) -> DistilledSet:
    """Read set.h5 as a torch Dataset of (image, soft label).

    Torch is imported here and not above, so that `distill --help` stays quick.

    Args:
        path: a set.h5, or the folder of a run that holds one.

    Raises:
        distill.errors.WorkError: if the file is missing, foreign or damaged.
    """
    from distill.sets.dataset import open_set

    return open_set(path)


def compress(set: str | Path, budget_bytes: int) -> Compressed:
    """Keep a set in at most `budget_bytes` bytes of images, labels and all else a receiver needs.

    Args:
        set: a set.h5, or the folder of a run that holds one.
        budget_bytes: at least 1.

    Returns:
        The set, how its images are coded, how near they come, and what is counted; `save` writes
        it as set.h5.

    Raises:
        distill.errors.WorkError: if the set cannot be read, or does not fit.
    """
    from distill.sets.compress import compress_set
    from distill.sets.set_file import read_set, set_path

    return compress_set(read_set(set_path(Path(set))), budget_bytes)
