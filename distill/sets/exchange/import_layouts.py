"""Readers of published layouts. Nothing in a file is executed: only plain tensors are loaded.

A reader gives images and labels as they are stored; what their numbers mean is found by
`distill.sets.exchange.labels` and `distill.sets.exchange.spaces`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.data import DataError, Request
from distill.data.sources.folder import read_pictures
from distill.errors import WorkError
from distill.sets.exchange.arrays import from_safetensors
from distill.sets.exchange.batch_labels import holds_batch_labels
from distill.sets.exchange.classes import numbers_of
from distill.sets.exchange.labels import LOGITS
from distill.store.foreign import is_plain, load_npz, load_torch
from synth.images import gather

_IMAGE_NAMES = ("images", "image", "data", "x")

_LABEL_NAMES = ("labels", "label", "targets", "y", "hard")

_RATE_NAMES = ("lr", "student_lr", "syn_lr")


@dataclass(frozen=True)
class ImportedSet:
    """A set in the form that another program stored it in.

    Attributes:
        images: [n, c, h, w] of any real type.
        labels: [n], [n, 1] or [n, k] of any real type.
        student_lr: the learned learning rate, or None.
        space: the usual space of the layout's images, "" where it has none.
        signed: what label numbers mean in this layout that do not tell it themselves, or "".
        class_names: or None where the layout has none.
        note: what was found beside the files that the user should know, or "".
    """

    images: Tensor
    labels: Tensor
    student_lr: float | None = None
    space: str = "normalised"
    signed: str = ""
    class_names: tuple[str, ...] | None = None
    note: str = ""


def import_mtt(path: Path) -> ImportedSet:
    """MTT and TESLA: images_best.pt (or the highest images_N.pt) and labels beside it.

    A file images_zca_*.pt, which MTT writes after undoing its whitening, holds pixels; the other
    images beside it are whitened. TESLA's labels are probabilities. Files are also found by names
    such as CIFAR10_IPC1_images.pt, as dc-benchmark has them.
    Source: mtt-distillation and tesla, distill.py.
    """
    images = _image_file(path)
    space, note = "normalised", ""
    if _UNWHITENED.match(images.name):
        space = "pixels"
    elif beside := [file.name for file in images.parent.glob("images_zca*.pt")]:
        space = "zca"
        note = f"images are whitened: {min(beside)} beside them is what MTT writes with --zca"
    return _with_labels(
        images, load_torch(images), _labels(images), _sibling(images, "lr"), space, note=note
    )


def import_datm(path: Path) -> ImportedSet:
    """DATM: images_best.pt, labels_best.pt (label logits) and lr_best.pt, whitened by default.

    Also images.pt, labels.pt and lr.pt, as DD-Ranking takes them. Source: DATM, distill.
    """
    images = _image_file(path)
    rate = _sibling(images, "lr")
    return _with_labels(images, load_torch(images), _labels(images), rate, "zca", signed=LOGITS)


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
    """Arrays images and labels, see `_named`."""
    return _named(path, load_npz(path))


def import_tensors(path: Path) -> ImportedSet:
    """A file of torch.save: a dict with images and labels, or a list of the two; see `_named`."""
    content = load_torch(path)
    if isinstance(content, list | tuple) and len(content) == 2:
        content = dict(zip(("images", "labels"), content, strict=True))
    if not isinstance(content, Mapping):
        raise WorkError(
            f"{path} holds no dict of images and labels, but {type(content).__name__}; store one "
            "with torch.save, or name the layout with --from"
        )
    return _named(path, {str(name): value for name, value in content.items()})


def import_safetensors(path: Path) -> ImportedSet:
    """Tensors images and labels, see `_named`."""
    arrays, _ = from_safetensors(path)
    return _named(path, arrays)


def import_folder(path: Path) -> ImportedSet:
    """One folder of pictures per class, as RDED and SRe2L leave them, and as `export set` does.

    Folders are classes in the order of their names, or of their numbers where they are named by
    numbers; of names like 00003-cat only cat remains.
    """
    if holds_batch_labels(path):
        raise WorkError(
            f"{path} holds soft labels by batches, no pictures; import the folder of these, with "
            f"--soft-labels {path}"
        )
    try:
        split, names = read_pictures(Request(f"folder:{path}", str(path)))
    except (DataError, OSError) as error:
        raise WorkError(f"{path}: {error}") from None
    labels = split.labels
    numbers = numbers_of(names)
    if numbers is not None and all(re.fullmatch(r"(new)?\d+", name) for name in names):
        order = sorted(range(len(names)), key=numbers.__getitem__)
        labels = torch.tensor(order).argsort()[labels]
        names = tuple(str(numbers[place]) for place in order)
    numbered = [re.fullmatch(r"(\d+)-(.+)", name) for name in names]
    if all(numbered):
        names = tuple(match[2] for match in numbered if match)
    return ImportedSet(gather(split.images), labels, space="pixels", class_names=names)


_UNWHITENED = re.compile(r"images_zca")


def _named(path: Path, arrays: Mapping[str, Any]) -> ImportedSet:
    """The set of arrays or tensors by name: images, labels and, if it is there, lr.

    Images may be bytes [n, h, w, c] as well.
    """
    images, labels = _find(arrays, _IMAGE_NAMES), _find(arrays, _LABEL_NAMES)
    if images is None or labels is None:
        raise WorkError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; images and labels are needed"
        )
    rate = _find(arrays, _RATE_NAMES)
    found = _with_labels(path, _tensor(path, images), _tensor(path, labels), None, "")
    return found if rate is None else replace(found, student_lr=_rate_of(path, rate))


def _find(arrays: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of the names that is there, whatever its case; or None."""
    by_name = {name.lower(): value for name, value in arrays.items()}
    return next((by_name[name] for name in names if name in by_name), None)


def _tensor(path: Path, value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise WorkError(f"{path} holds an array of {value.dtype}, numbers are needed; store them")
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        # torch computes with signed integers alone.
        value = value.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="))))


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
    if numbered:
        return max(numbered)[1]
    others = sorted(path.glob("*_images.pt"))
    if len(others) == 1:
        return others[0]
    if list(path.glob("replay_buffer_*.pt")):
        raise WorkError(f"{path} holds experts of MTT, no set; import them with --from buffers")
    raise WorkError(f"{path} holds no images_best.pt, images.pt or images_N.pt; name one")


def _sibling(images: Path, kind: str) -> Path | None:
    """labels_N.pt or lr_N.pt for images_N.pt, and NAME_labels.pt for NAME_images.pt, if there."""
    for name in (
        re.sub(r"^images(_zca)?", kind, images.name),
        re.sub(r"images(\.\w+)$", rf"{kind}\1", images.name),
    ):
        path = images.with_name(name)
        if path.is_file() and path != images:
            return path
    return None


def _labels(images: Path) -> Any:
    path = _sibling(images, "labels")
    if path is None:
        raise WorkError(f"the labels_... file beside {images} is missing; both are needed")
    return load_torch(path)


def _rate(path: Path) -> float:
    """The learning rate that a file holds."""
    return _rate_of(path, load_torch(path))


def _rate_of(path: Path, rate: Any) -> float:
    if isinstance(rate, np.ndarray):
        rate = rate.item() if rate.size == 1 and rate.dtype.kind in "iuf" else None
    if isinstance(rate, Tensor):
        rate = rate.item() if is_plain(rate) and rate.numel() == 1 else None
    if not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise WorkError(f"{path} holds no learning rate above 0; make the file again or remove it")
    return float(rate)


def _with_labels(
    path: Path,
    images: Any,
    labels: Any,
    lr: Path | None,
    space: str,
    *,
    signed: str = "",
    note: str = "",
) -> ImportedSet:
    """Check that there are as many plain labels as images, and bring images to [n, c, h, w]."""
    if not is_plain(images) or not is_plain(labels):
        raise WorkError(f"{path} holds no plain tensors of images and labels; name another file")
    if images.ndim == 4 and images.dtype == torch.uint8 and _channels_last(images.shape):
        images = images.permute(0, 3, 1, 2)
    if images.ndim != 4 or not images.numel() or labels.shape[:1] != images.shape[:1]:
        raise WorkError(
            f"{path} holds images {tuple(images.shape)} and labels {tuple(labels.shape)}; "
            "[n, c, h, w] and n labels are needed"
        )
    rate = None if lr is None else _rate(lr)
    return ImportedSet(images.detach(), labels.detach(), rate, space, signed, note=note)


def _channels_last(shape: torch.Size) -> bool:
    return shape[3] in (1, 3) and shape[1] not in (1, 3)
