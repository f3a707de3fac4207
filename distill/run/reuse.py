"""Reuse of stages that another run has finished from the same inputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from distill.recipes.stages import MAKERS
from distill.run.artefacts import COMMITTEE_STAGE, EXPERTS_STAGE, PROJECT_STAGE
from distill.store.files import atomic_path, new_folder

# Stages whose output is a file or folder of its own that many recipes can share, and those that
# make the images of a set, to which other recipes can add labels.
REUSED = (EXPERTS_STAGE, COMMITTEE_STAGE, PROJECT_STAGE, *MAKERS)


def take_outputs(
    run: Path,
    outputs: Iterable[str],
    folder: Path,
    is_own: Callable[[Path], bool] = lambda folder: True,
) -> None:
    """Put the outputs of another run's stage into `folder`.

    Files are hard-linked where both folders lie on one disk, which is safe: files are replaced,
    never changed. Folders are copied. The caller checks that they are there, and their digests.

    Args:
        run: folder of the other run.
        outputs: names of its files and folders.
        folder: of the run that reuses them.
        is_own: whether a folder that lies where one is put may be replaced, see `new_folder`.
    """
    for name in outputs:
        if (run / name).is_dir():
            with new_folder(folder / name, is_own) as temporary:
                shutil.copytree(run / name, temporary, dirs_exist_ok=True)
        else:
            with atomic_path(folder / name) as temporary:
                link_or_copy(run / name, temporary)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it to another disk; `target` must not be there."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
