"""Readers of published layouts. Nothing in a file is executed: only plain tensors are loaded."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from distill.data import DataError, Request
from distill.data.sources.folder import read_pictures
from distill.errors import WorkError
from distill.store.foreign import is_plain, load_npz, load_torch
from synth.images import gather

Space = Literal["normalised", "pixels", "zca"]


@dataclass(frozen=True)
class ImportedSet:
    """A set in the form that another program stored it in.

    Attributes:
        images: [n, c, h, w] float32.
        hard: [n] int64 classes, or None where soft labels are all there is.
        soft: [n, k] label logits, or None.
        student_lr: the learned learning rate, or None.
        space: of the images: normalised per channel, pixels in [0, 1], or whitened.
        class_names: or None where the layout has none.
    """

    images: Tensor
    hard: Tensor | None = None
    soft: Tensor | None = None
    student_lr: float | None = None
    space: Space = "normalised"
    class_names: tuple[str, ...] | None = None


def import_mtt(path: Path) -> ImportedSet:
    """MTT and TESLA: images_best.pt (or the highest images_N.pt) and labels beside it.

    A file images_zca_*.pt, which MTT writes after undoing its whitening, holds pixels.
    Source: mtt-distillation, distill.py.
    """
    images = _image_file(path)
    space: Space = "pixels" if images.name.startswith("images_zca") else "normalised"
    return _with_labels(images, load_torch(images), _labels(images), _sibling(images, "lr"), space)


def import_datm(path: Path) -> ImportedSet:
    """DATM: images_best.pt, labels_best.pt (label logits) and lr_best.pt, whitened by default.

    Also images.pt, labels.pt and lr.pt, as DD-Ranking takes them. Source: DATM, distill.
    """
    images = _image_file(path)
    return _with_labels(images, load_torch(images), _labels(images), _sibling(images, "lr"), "zca")


def import_dc(path: Path) -> ImportedSet:
    """DC, DSA and DM: one file {"data": [[images, labels], ...], ...}; the last set counts.

    Source: VICO-UoE DatasetCondensation, main.py and main_DM.py.
    """
    content = load_torch(path)
    data = content.get("data") if isinstance(content, dict) else None
    last = data[-1] if isinstance(data, list | tuple) and data else None
    if not isinstance(last, list | tuple) or len(last) != 2:
        raise WorkError(f'{path} holds no {{"data": [[images, labels], ...]}}; name a file of DC')
    return _with_labels(path, last[0], last[1], None, "normalised")


def import_idc(path: Path) -> ImportedSet:
    """IDC: one file [images, labels] of pixels in [0, 1]; give its factor with --factor.

    Source: snu-mllab Efficient-Dataset-Condensation, condense.py.
    """
    file = path / "data.pt" if path.is_dir() else path
    content = load_torch(file)
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise WorkError(f"{file} holds no list of images and labels; name a file of IDC")
    return _with_labels(file, content[0], content[1], None, "pixels")


def import_npz(path: Path) -> ImportedSet:
    """Arrays images and labels (classes, or one row of probabilities per image).

    Bytes are pixels, floats normalised images.
    """
    arrays = load_npz(path)
    if not {"images", "labels"} <= set(arrays):
        raise WorkError(f"{path} holds {', '.join(arrays)}; the arrays images, labels are needed")
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype.kind not in "biuf" or labels.dtype.kind not in "biuf":
        raise WorkError(
            f"{path} holds images of {images.dtype} and labels of {labels.dtype}, numbers are "
            "needed; store arrays of them"
        )
    if labels.dtype.kind == "f":
        labels = np.asarray(np.log(np.clip(labels.astype(np.float32), 1e-8, None)))
    whole = images.dtype == np.uint8
    # Values beyond float32 become infinite, which no set may hold.
    with np.errstate(over="ignore"):
        pixels = images.astype(np.float32) / 255 if whole else images.astype(np.float32)
    labels = labels if labels.dtype.kind == "f" else labels.astype(np.int64)
    space: Space = "pixels" if whole else "normalised"
    return _with_labels(path, torch.from_numpy(pixels), torch.from_numpy(labels), None, space)


def import_folder(path: Path) -> ImportedSet:
    """One folder of pictures per class, as RDED and SRe2L leave them, and as `export set` does.

    Folders are classes in the order of their names; of names like 00003-cat only cat remains.
    """
    try:
        split, names = read_pictures(Request(f"folder:{path}", str(path)))
    except (DataError, OSError) as error:
        raise WorkError(f"{path}: {error}") from None
    numbered = [re.fullmatch(r"(\d+)-(.+)", name) for name in names]
    if all(numbered):
        names = tuple(match[2] for match in numbered if match)
    named = None if all(re.fullmatch(r"(new)?\d+", name) for name in names) else names
    return ImportedSet(gather(split.images), split.labels, space="pixels", class_names=named)


def _image_file(path: Path) -> Path:
    """The file of images: itself, or the best, plain or latest one of a folder."""
    if not path.is_dir():
        return path
    for name in ("images_best.pt", "images.pt", "images_zca_best.pt"):
        if (path / name).is_file():
            return path / name
    numbered = [
        (int(match[1]), file)
        for file in path.glob("images_*.pt")
        if (match := re.fullmatch(r"images_(\d+)\.pt", file.name))
    ]
    if not numbered:
        raise WorkError(f"{path} holds no images_best.pt, images.pt or images_N.pt; name one")
    return max(numbered)[1]


def _sibling(images: Path, kind: str) -> Path | None:
    """labels_N.pt or lr_N.pt for images_N.pt, if it is there."""
    path = images.with_name(re.sub(r"^images(_zca)?", kind, images.name))
    return path if path.is_file() and path != images else None


def _labels(images: Path) -> Any:
    path = _sibling(images, "labels")
    if path is None:
        raise WorkError(f"the labels_... file beside {images} is missing; both are needed")
    return load_torch(path)


def _rate(path: Path) -> float:
    """The learning rate that a file holds."""
    rate = load_torch(path)
    if isinstance(rate, Tensor):
        rate = rate.item() if is_plain(rate) and rate.numel() == 1 else None
    if not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise WorkError(f"{path} holds no learning rate above 0; make the file again or remove it")
    return float(rate)


def _with_labels(
    path: Path, images: Any, labels: Any, lr: Path | None, space: Space
) -> ImportedSet:
    """Check shapes, and tell classes from logits."""
    if not is_plain(images) or not is_plain(labels):
        raise WorkError(f"{path} holds no plain tensors of images and labels; name another file")
    if images.ndim != 4 or len(images) == 0 or labels.shape[:1] != images.shape[:1]:
        raise WorkError(
            f"{path} holds images {tuple(images.shape)} and labels {tuple(labels.shape)}; "
            "[n, c, h, w] and n labels are needed"
        )
    images = images.detach().float()
    rate = None if lr is None else _rate(lr)
    if labels.ndim == 2:
        return ImportedSet(images, None, labels.detach().float(), rate, space)
    if labels.ndim != 1 or labels.is_floating_point() or int(labels.min()) < 0:
        raise WorkError(f"{path} holds labels {tuple(labels.shape)} of {labels.dtype}, not classes")
    return ImportedSet(images, labels.long(), None, rate, space)
