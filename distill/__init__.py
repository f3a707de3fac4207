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


def compress(set: str | Path | DistilledSet, budget_bytes: int, *, steps: int = 0) -> Compressed:
    """Keep a set in at most `budget_bytes` bytes of images, labels and all else a receiver needs.

    Args:
        set: a set.h5, the folder of a run that holds one, or what `load` gave.
        budget_bytes: at least 1.
        steps: gradient steps that bring coded images nearer to the originals in the same bytes;
            30 are enough, 0 for none.

    Returns:
        The set, how its images are coded, how near they come, and what is counted; `save` writes
        it as set.h5.

    Raises:
        distill.errors.WorkError: if the set cannot be read, or does not fit, or an argument is of
            another kind.
    """
    from distill.sets.compress import compress_given

    return compress_given(set, budget_bytes, steps)
