"""Reuse of stages that another run has finished from the same inputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from distill.recipes.stages import MAKERS
from distill.store.files import atomic_path

# Stages whose output is a file of its own that many recipes can share, and those that make the
# images of a set, to which other recipes can add labels.
REUSED = ("experts", "committee", *MAKERS)


def take_outputs(run: Path, outputs: Iterable[str], folder: Path) -> bool:
    """Put the output files of another run's stage into `folder`; whether all were there.

    Files are hard-linked where both folders lie on one disk, which is safe: files are replaced,
    never changed. The caller checks the digests.

    Args:
        run: folder of the other run.
        outputs: names of its files.
        folder: of the run that reuses them.
    """
    names = list(outputs)
    if not all((run / name).is_file() for name in names):
        return False
    for name in names:
        with atomic_path(folder / name) as temporary:
            link_or_copy(run / name, temporary)
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it to another disk; `target` must not be there."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
