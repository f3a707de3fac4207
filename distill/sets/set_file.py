"""set.h5: a synthetic set that describes itself.

/images float32 [n, c, h, w] in the normalised space, /hard [n] in the smallest unsigned integer,
/labels/learned (logits float32 [n, k]), /labels/full-fp16 (voted logits of every view, see
`distill.sets.soft_labels`) and /labels/<codec> (see `distill.sets.encoded_labels`). Root
attributes, as JSON:
class_names, preprocess, student_lr, augmentation, network, seed, recipe, recipe_digest, source,
factor (each stored image decodes to factor^2 images, see `synth.formation`), and `measured` once
the set was evaluated. A set of whitened images also holds /preprocess/mean, /transform and
/inverse, see `synth.whitening`. Where /refined [n, c, h, w] is there, students see it in place of
/images. A set in few bytes holds /coded, the pixels in [0, 1] as `synth.coding.pack_images` keeps
them (uint8), instead of /images; a reader decodes and normalises them. Its learned labels may lie
in /labels/learned-coded (uint8), a container of `projectors.codecs`, instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.data import AnyPreprocess, DataError, Preprocess, ZCAPreprocess
from distill.errors import WorkError
from distill.run.artefacts import MANIFEST, MANIFEST_COPY, SET
from distill.sets.coded_set import coded_shape, decode_coded, get_bytes, put_bytes, unpack_labels
from distill.sets.encoded_labels import EncodedVotes, put_encoded, read_encoded
from distill.sets.set_attributes import attribute_problem
from distill.sets.soft_labels import put_votes, read_votes, votes_problem
from distill.store.files import refuse_links
from distill.store.hdf5 import (
    DAMAGE,
    create_h5,
    get_json,
    open_h5,
    open_unchecked,
    put,
    put_json,
    read_array,
    smallest_unsigned,
)
from distill.store.large_arrays import put_large, read_large
from synth.coding import CodingError
from synth.committee.relabel import StoredVotes
from synth.errors import lacks_memory
from synth.formation import decode_images, decode_labels
from synth.images import Images, gather
from synth.whitening import Whitening

SET_KIND = "set"

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
    "factor",
)

_LEARNED, _LEARNED_CODED, _FULL = "learned", "learned-coded", "full-fp16"

# Parts that may be left out when a set is read.
VOTES, MEASURED, REFINED, ENCODED = f"labels/{_FULL}", "@measured", "refined", "labels"

_NOT_ENCODED = tuple(f"labels/{name}" for name in (_FULL, _LEARNED, _LEARNED_CODED))

_WHITENING = ("mean", "transform", "inverse")

# A set holds one of these, and a reader of files asks for the one that is there.
_IMAGES, _CODED = "images", "coded"


@dataclass(frozen=True)
class SetFile:
    """The content of set.h5.

    Attributes:
        images: [n, c, h, w] float32, normalised or whitened, as stored or as decoded from
            `coded`; those of a large set are read by batches, see `distill.store.large_arrays`.
        hard: [n] int64 classes.
        manifest: root attributes by name, see the head of this module.
        learned: [m, k] label logits of the images that students see, or None.
        votes: voted labels of every view, or None.
        measured: the results of an evaluation, or None.
        whitening: the ZCA transform and its inverse, or None for per-channel normalisation.
        refined: [n, c, h, w] the images as a tower refined them, or None.
        encoded: voted labels in fewer bytes, by their codec spec.
        coded: the images' pixels as `synth.coding.pack_images` keeps them, which are stored in
            place of `images`, or None. `distill.sets.additions.code_images` sets both.
        coded_labels: container of the learned labels, which is stored in their place, or None.
    """

    images: Images
    hard: Tensor
    manifest: dict[str, Any] = field(default_factory=dict)
    learned: Tensor | None = None
    votes: StoredVotes | None = None
    measured: dict[str, Any] | None = None
    whitening: Whitening | None = None
    refined: Images | None = None
    encoded: Mapping[str, EncodedVotes] = field(default_factory=dict)
    coded: bytes | None = None
    coded_labels: bytes | None = None

    @property
    def factor(self) -> int:
        """f: each stored image decodes to f x f images that students see."""
        return int(self.manifest["factor"])

    @property
    def seen_images(self) -> Images:
        """[m, c, h, w], the images that students see; m = n * factor^2."""
        stored = self.images if self.refined is None else self.refined
        return stored if self.factor == 1 else decode_images(gather(stored), self.factor)

    @property
    def seen_hard(self) -> Tensor:
        """[m] hard labels of the images that students see."""
        return decode_labels(self.hard, self.factor)

    @property
    def preprocess(self) -> AnyPreprocess:
        """From pixels to the space of the images, and back."""
        if self.whitening is not None:
            return ZCAPreprocess(self.whitening)
        return Preprocess.from_dict(self.manifest["preprocess"])


def write_set(path: Path, content: SetFile) -> None:
    """Write set.h5 atomically; the same content gives the same bytes."""
    with create_h5(path, SET_KIND) as file:
        for name in _ATTRIBUTES:
            put_json(file, name, content.manifest[name])
        if content.coded is None:
            put_large(file, _IMAGES, content.images, np.float32)
        else:
            put_bytes(file, _CODED, content.coded)
        kind = smallest_unsigned(len(content.manifest["class_names"]))
        if content.refined is not None:
            put_large(file, "refined", content.refined, np.float32)
        put(file, "hard", content.hard.cpu().numpy().astype(kind), None)
        _put_labels(file.create_group("labels"), content)
        if content.measured is not None:
            put_json(file, "measured", content.measured)
        if content.whitening is not None:
            group = file.create_group("preprocess")
            for name in _WHITENING:
                put(group, name, getattr(content.whitening, name).cpu().numpy(), None)


def _put_labels(labels: h5py.Group, content: SetFile) -> None:
    if content.coded_labels is not None:
        put_bytes(labels, _LEARNED_CODED, content.coded_labels)
    elif content.learned is not None:
        put(labels, _LEARNED, content.learned.cpu().numpy().astype(np.float32), None)
    if content.votes is not None:
        put_votes(labels.create_group(_FULL), content.votes)
    for name, encoded in content.encoded.items():
        images = len(content.images) * content.factor**2
        put_encoded(labels.create_group(name), encoded, images)


def read_set(path: Path, leave_out: Collection[str] = ()) -> SetFile:
    """Read and check set.h5.

    Args:
        path: of the file.
        leave_out: parts that the caller replaces or does not need, of `VOTES`, `MEASURED`,
            `REFINED`, `ENCODED` and `encoded_part` of a codec: they are None, or not among the
            others, and may be damaged.

    Raises:
        WorkError: if it is missing, foreign, damaged, or inconsistent.
    """
    with open_h5(path, SET_KIND, leave_out, set(_NOT_ENCODED) - set(leave_out)) as file:
        manifest = {name: get_json(file, name) for name in _ATTRIBUTES}
        labels = file["labels"]
        learned = torch.from_numpy(read_array(labels, _LEARNED)) if _LEARNED in labels else None
        coded_labels = get_bytes(labels, _LEARNED_CODED)
        if coded_labels is not None:
            learned = unpack_labels(coded_labels)
        encoded = {
            name: _read_encoded(labels, name)
            for name in _codecs(labels)
            if ENCODED not in leave_out and encoded_part(name) not in leave_out
        }
        stated = "measured" in file.attrs and MEASURED not in leave_out
        measured = get_json(file, "measured") if stated else None
        if _CODED in file and _IMAGES in file:
            raise OSError(f"it holds both /{_CODED} and /{_IMAGES}")
        payload = get_bytes(file, _CODED)
        images = torch.empty(0) if payload is not None else read_large(file, _IMAGES, np.float32)
        shape = images.shape if payload is None else _coded_shape(path, payload)
        voted = _FULL in labels and VOTES not in leave_out
        votes = read_votes(labels[_FULL], shape[2:]) if voted else None
        hard = torch.from_numpy(read_array(file, "hard").astype(np.int64))
        whitening = _read_whitening(file, shape) if "preprocess" in file else None
        moved = "refined" in file and REFINED not in leave_out
        refined = read_large(file, "refined", np.float32) if moved else None
        parts = (learned, votes, measured, whitening, refined, encoded)
        content = SetFile(images, hard, manifest, *parts, coded_labels=coded_labels)
        content = content if payload is None else _decoded(path, content, payload)
        # Here, as parts of wrong kinds, such as one number in place of many, fail in any way.
        _check(path, content)
    return content


def encoded_part(name: str) -> str:
    """The labels of one codec, as a part of a set, see `read_set`."""
    return f"labels/{name}"


def encoded_names(path: Path) -> list[str]:
    """The codecs whose labels a set holds, damaged or not."""
    with open_unchecked(path, SET_KIND) as file:
        return _codecs(file["labels"])


def _codecs(labels: h5py.Group) -> list[str]:
    return [name for name in labels if name not in (_LEARNED, _LEARNED_CODED, _FULL)]


def _read_encoded(labels: h5py.Group, name: str) -> EncodedVotes:
    try:
        return read_encoded(labels[name])
    except DAMAGE as error:
        if lacks_memory(error):
            raise
        raise OSError(f"labels/{name}, which can be encoded again: {error}") from None


def _coded_shape(path: Path, payload: bytes) -> Sequence[int]:
    try:
        return coded_shape(payload)
    except CodingError as error:
        raise WorkError(f"{path}: {error}") from None


def _decoded(path: Path, content: SetFile, payload: bytes) -> SetFile:
    """The content with the images of its payload."""
    _refuse(path, attribute_problem(content.manifest))
    try:
        images = decode_coded(payload, content.preprocess, len(content.hard))
    except (CodingError, DataError, RuntimeError) as error:
        raise WorkError(f"{path}: {error}") from None
    return replace(content, images=images, coded=payload)


def made_parts(path: Path) -> tuple[str, ...]:
    """The datasets of a set.h5 that the stage which makes its images writes, coded or not.

    Raises:
        WorkError: if the file is missing, foreign or damaged.
    """
    learned = tuple(f"labels/{name}" for name in (_LEARNED, _LEARNED_CODED))
    with open_unchecked(path, SET_KIND) as file:
        images = _CODED if _CODED in file else _IMAGES
        return (images, "hard", *(name for name in learned if name in file))


def _read_whitening(file: h5py.File, shape: Sequence[int]) -> Whitening:
    mean, transform, inverse = (
        torch.from_numpy(read_array(file["preprocess"], name)) for name in _WHITENING
    )
    c, h, w = shape[1:]
    try:
        return Whitening(mean, transform, inverse, (c, h, w))
    except ValueError as error:
        raise OSError(str(error)) from None


def _check(path: Path, content: SetFile) -> None:
    _refuse(path, attribute_problem(content.manifest))
    _refuse(path, _image_problem(content) or _label_problem(content))


def _refuse(path: Path, problem: str | None) -> None:
    if problem:
        raise WorkError(f"{path}: {problem}; the file is damaged or foreign: make it again")


def _image_problem(content: SetFile) -> str | None:
    n, classes = len(content.images), len(content.manifest["class_names"])
    if len(content.images.shape) != 4 or not n:
        return f"images have shape {tuple(content.images.shape)}, need [n, c, h, w]"
    if content.whitening is None:
        try:
            content.preprocess.inverse(content.images[:1])
        except (DataError, TypeError) as error:
            return str(error)
    if not _is_finite(content.images):
        return "images hold NaN or infinite pixels"
    if content.refined is not None and content.refined.shape != content.images.shape:
        return f"refined images have shape {tuple(content.refined.shape)}, unlike the images"
    if content.refined is not None and not _is_finite(content.refined):
        return "refined images hold NaN or infinite pixels"
    if content.hard.shape != (n,):
        return f"there are {len(content.hard)} hard labels for {n} images"
    if bool(((content.hard < 0) | (content.hard >= classes)).any()):
        return f"a hard label lies outside the {classes} classes"
    return None


def _is_finite(images: Images) -> bool:
    """Whether images in memory are finite; larger ones were checked when written."""
    return not isinstance(images, Tensor) or bool(images.isfinite().all())


def _label_problem(content: SetFile) -> str | None:
    n, classes = len(content.images) * content.factor**2, len(content.manifest["class_names"])
    learned, votes = content.learned, content.votes
    if learned is not None and learned.shape != (n, classes):
        return f"learned labels have shape {tuple(learned.shape)}, need [{n}, {classes}]"
    if learned is not None and not bool(learned.isfinite().all()):
        return "learned labels hold NaN or infinite values"
    return None if votes is None else votes_problem(votes, n, classes)


def lone_set(path: Path) -> Path | None:
    """The file of a set at a path that is no run: the file itself, or that in a grown set's folder.

    None where there is neither.
    """
    if path.is_file():
        return path
    of_run = any((path / name).exists() for name in (MANIFEST, MANIFEST_COPY))
    return path / SET if not of_run and (path / SET).is_file() else None


def set_path(path: Path) -> Path:
    """The file of a set, given the file or the folder of its run.

    Raises:
        WorkError: if a link leads out of the run's folder, see `refuse_links`.
    """
    folder = path if path.is_dir() else path.parent
    if (folder / MANIFEST).exists():
        refuse_links(folder)
    return path / SET if path.is_dir() else path
