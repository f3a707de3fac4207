"""Reuse of stages that another run has finished from the same inputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.run.artefacts import MANIFEST
from distill.run.manifest import read_manifest
from distill.store.files import atomic_path

# Stages whose output is a file of its own that many recipes can share.
REUSED = ("experts", "committee")


def take_stage(runs: Sequence[Path], name: str, key: str, folder: Path) -> dict[str, Any] | None:
    """The manifest's entry of a stage that one of `runs` has finished, its files now in `folder`.

    Files are hard-linked where both folders lie on one disk, which is safe: files are replaced,
    never changed. The caller checks the digests.

    Args:
        runs: folders of finished or unfinished runs.
        name: of the stage.
        key: digest of everything that decides its outputs.
        folder: of the run that reuses it.

    Raises:
        WorkError: if one of `runs` is not the folder of a run.
    """
    if name not in REUSED:
        return None
    for run in runs:
        entry = read_manifest(run / MANIFEST)["stages"].get(name)
        if entry is None or entry["key"] != key:
            continue
        if not all((run / output).is_file() for output in entry["outputs"]):
            continue
        for output in entry["outputs"]:
            with atomic_path(folder / output) as temporary:
                _link_or_copy(run / output, temporary)
        return dict(entry)
    return None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
