"""set.h5: a synthetic set that says all that a consumer needs.

/images float32 [n, c, h, w] in the normalised space, /hard [n] in the smallest unsigned integer,
/labels/learned (logits float32 [n, k]) and /labels/full-fp16 (ids, views and logits of every
labelled view). Root attributes, as JSON: class_names, preprocess, student_lr, augmentation,
network, seed, recipe, recipe_digest, source, and `measured` once the set was evaluated.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.store.files import atomic_path
from distill.store.hdf5 import get_json, open_h5, put, put_json, start_file
from synth.relabel import StoredVotes

KIND = "set"
_ATTRIBUTES = (
    "class_names",
    "preprocess",
    "student_lr",
    "augmentation",
    "network",
    "seed",
    "recipe",
    "recipe_digest",
    "source",
)


@dataclass(frozen=True)
class SetFile:
    """The content of set.h5.

    Attributes:
        images: [n, c, h, w] float32, normalised.
        hard: [n] int64 classes.
        manifest: root attributes by name, see the head of this module.
        learned: [n, k] label logits, or None.
        votes: voted labels of every view, or None.
        measured: what an evaluation found, or None.
    """

    images: Tensor
    hard: Tensor
    manifest: dict[str, Any] = field(default_factory=dict)
    learned: Tensor | None = None
    votes: StoredVotes | None = None
    measured: dict[str, Any] | None = None


def write_set(path: Path, content: SetFile) -> None:
    """Write set.h5 with images, hard and learned labels, atomically."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        start_file(file, KIND)
        for name in _ATTRIBUTES:
            put_json(file, name, content.manifest[name])
        put(file, "images", content.images.cpu().numpy().astype(np.float32), None)
        kind = smallest_unsigned(len(content.manifest["class_names"]))
        put(file, "hard", content.hard.cpu().numpy().astype(kind), None)
        labels = file.create_group("labels")
        if content.learned is not None:
            put(labels, "learned", content.learned.cpu().numpy().astype(np.float32), None)


def add_votes(path: Path, votes: StoredVotes) -> None:
    """Add or replace /labels/full-fp16, atomically."""
    with _changed(path) as file:
        labels = file["labels"]
        if "full-fp16" in labels:
            del labels["full-fp16"]
        group = labels.create_group("full-fp16")
        put_json(group, "families", list(votes.families))
        group.attrs["batch_size"] = votes.batch_size
        group.attrs["temperature"] = votes.temperature
        group.attrs["batch_statistics"] = votes.batch_statistics
        ids = votes.ids.numpy().astype(smallest_unsigned(votes.ids.shape[1]))
        for name, array in (
            ("ids", ids),
            ("views", votes.views.numpy()),
            ("logits", votes.logits.numpy()),
        ):
            put(group, name, array, None)


def add_measured(path: Path, measured: dict[str, Any]) -> None:
    """Set the root attribute `measured`, atomically."""
    with _changed(path) as file:
        put_json(file, "measured", measured)


def smallest_unsigned(count: int) -> np.dtype[Any]:
    """The smallest unsigned integer type that can number `count` things."""
    return np.min_scalar_type(max(count - 1, 0))


class _changed:
    """A copy of an HDF5 file to change, which replaces it if the block ends well."""

    def __init__(self, path: Path) -> None:
        self._atomic = atomic_path(path)
        self._path = path

    def __enter__(self) -> h5py.File:
        temporary = self._atomic.__enter__()
        shutil.copyfile(self._path, temporary)
        self._file = h5py.File(temporary, "r+")
        return self._file

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        self._atomic.__exit__(*error)


def read_set(path: Path) -> SetFile:
    """Read and check set.h5.

    Raises:
        WorkError: if it is missing, foreign, damaged, or its parts contradict each other.
    """
    with open_h5(path, KIND) as file:
        manifest = {name: get_json(file, name) for name in _ATTRIBUTES}
        labels = file["labels"]
        learned = torch.from_numpy(labels["learned"][()]) if "learned" in labels else None
        votes = _read_votes(labels["full-fp16"]) if "full-fp16" in labels else None
        measured = get_json(file, "measured") if "measured" in file.attrs else None
        images = torch.from_numpy(file["images"][()])
        hard = torch.from_numpy(file["hard"][()].astype(np.int64))
    content = SetFile(images, hard, manifest, learned, votes, measured)
    _check(path, content)
    return content


def _read_votes(group: h5py.Group) -> StoredVotes:
    return StoredVotes(
        ids=torch.from_numpy(group["ids"][()].astype(np.int64)),
        views=torch.from_numpy(group["views"][()]),
        logits=torch.from_numpy(group["logits"][()]),
        families=tuple(get_json(group, "families")),
        batch_size=int(group.attrs["batch_size"]),
        temperature=float(group.attrs["temperature"]),
        batch_statistics=bool(group.attrs["batch_statistics"]),
    )


def _check(path: Path, content: SetFile) -> None:
    n, classes = len(content.images), len(content.manifest["class_names"])
    problem = None
    if content.images.ndim != 4 or not n:
        problem = f"images have shape {tuple(content.images.shape)}, need [n, c, h, w]"
    elif not bool(content.images.isfinite().all()):
        problem = "images hold NaN or infinite pixels"
    elif content.hard.shape != (n,):
        problem = f"there are {len(content.hard)} hard labels for {n} images"
    elif bool(((content.hard < 0) | (content.hard >= classes)).any()):
        problem = f"a hard label lies outside the {classes} classes"
    elif content.learned is not None and content.learned.shape != (n, classes):
        problem = f"learned labels have shape {tuple(content.learned.shape)}, need [{n}, {classes}]"
    elif content.votes is not None and (
        content.votes.logits.shape[1:] != (n, classes) or int(content.votes.ids.max()) >= n
    ):
        problem = "the voted labels do not fit the images"
    if problem:
        raise WorkError(f"{path}: {problem}; the file is damaged or foreign: make it again")
