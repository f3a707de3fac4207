"""Limbeck's application: recipes, data, runs, evaluation and the command `distill`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from distill.sets.dataset import DistilledSet


__all__ = ["load"]


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
