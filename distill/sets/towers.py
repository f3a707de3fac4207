"""Fetching the towers of projectors, for the commands that may ask the network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import projectors
from distill.errors import WorkError
from distill.run.artefacts import MANIFEST, PROJECTOR, SET
from distill.sets.set_file import SET_KIND, read_set
from distill.store.hdf5 import read_kind
from projectors import ProjectorError
from projectors.codecs import CodecError
from projectors.codecs.container import unseal
from projectors.codecs.residual import unpack_residual
from projectors.files.archive import unpack_projector
from projectors.files.description import DESCRIPTION, TowerRecord, read_description


def fetch_tower(spec: str, seed: int) -> None:
    """Fetch what is missing of a tower.

    Raises:
        WorkError: if it cannot be had.
    """
    try:
        projectors.load_tower(spec, seed, download=True)
    except ProjectorError as error:
        raise WorkError(f"--download: {error}") from None


def check_tower(key: str, spec: str, seed: int) -> None:
    """Load a tower once, so that one that cannot be had is named before the work begins.

    Args:
        key: of the recipe, for the message.
        spec: of the tower.
        seed: of towers that are drawn.

    Raises:
        WorkError: if it cannot be had.
    """
    try:
        projectors.load_tower(spec, seed)
    except ProjectorError as error:
        raise WorkError(f"{key}: {error}") from None


def fetch_towers(path: Path) -> None:
    """Fetch the towers that a projector, a set, or a run's folder names.

    Raises:
        WorkError: if it cannot be read, or a tower cannot be had.
    """
    try:
        for tower in _towers(path):
            fetch_tower(tower.spec, tower.seed)
    except (CodecError, ProjectorError) as error:
        raise WorkError(f"{path}: {error}") from None


def _towers(path: Path) -> Iterator[TowerRecord]:
    inside = (path / PROJECTOR, path / SET) if (path / MANIFEST).is_file() else (path,)
    for part in inside:
        if (part / DESCRIPTION).is_file():
            yield read_description(part).tower
        elif part.is_file() and read_kind(part) == SET_KIND:
            for encoded in read_set(part).encoded.values():
                yield from _packed(encoded.payload)


def _packed(payload: bytes) -> Iterator[TowerRecord]:
    """The tower of a projector in encoded labels."""
    if unseal(payload)[0].get("network") == "residual":
        payload, _ = unpack_residual(payload)
    if unseal(payload)[0].get("network") == "projector":
        with tempfile.TemporaryDirectory() as folder:
            unpack_projector(payload, Path(folder))
            tower = read_description(Path(folder)).tower
        yield tower
