"""Data that are given in Python, as a source that a recipe can name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from distill.data.splits import DataError, SourceError
from distill.names import DATA
from distill.store.files import atomic_path
from distill.store.packed import is_pack

_KINDS = (
    "give a torch Dataset of (image, class), a pair (images, classes), two of these as "
    "(train, test), a mapping of arrays, a folder or a source"
)


def given_source(data: object, file: Path) -> str:
    """The source of data that are given in Python.

    Args:
        data: a source such as "torchvision:CIFAR10"; a folder with a folder of pictures for each
            class, one that `distill pack` made, or an npz file; a torch Dataset whose items are
            an image (a picture of Pillow, or an array or tensor) and a class number; a pair of
            images and class numbers; two Datasets or two pairs, train and test; or a mapping
            with the arrays of the source `npz`, see `distill.data.sources.npz`. Images are uint8,
            or floats in [0, 1], of one size.
        file: what lies in memory alone is written here, as an npz file.

    Returns:
        The source, with an absolute path where it has one that was made here.

    Raises:
        SourceError: for a text that names no source and no place.
        DataError: for data of another kind.
    """
    if isinstance(data, str | Path):
        return named_source(data)
    arrays: dict[str, Any] = dict(_arrays(data))
    with atomic_path(file) as temporary, temporary.open("wb") as out:
        np.savez(out, **arrays)
    return f"npz:{file.resolve()}"


def named_source(data: str | Path) -> str:
    """The source that a text or a path names: itself, a folder of classes, a pack, or an npz file.

    Raises:
        SourceError: for a text that names no source and no place.
    """
    if isinstance(data, str) and data.partition(":")[0] in DATA:
        return data
    path = Path(data).expanduser()
    if path.is_dir():
        return f"{'packed' if is_pack(path) else 'folder'}:{path.resolve()}"
    if path.suffix == ".npz" and path.is_file():
        return f"npz:{path.resolve()}"
    raise SourceError(
        f"data {str(data)!r} is no source, no folder and no npz file; {_KINDS}, such as digits"
    )


def _arrays(data: object) -> dict[str, np.ndarray]:
    """The arrays of an npz file with these data."""
    if isinstance(data, Mapping):
        return {str(name): _shrunk(_array(value, str(name))) for name, value in data.items()}
    parts = data if isinstance(data, tuple) else (data,)
    if len(parts) == 2 and all(map(_is_part, parts)):
        (x_train, y_train, names), (x_test, y_test, _) = map(_part, parts)
        arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    else:
        images, labels, names = _part(data)
        arrays = {"images": images, "labels": labels}
    if names:
        arrays["class_names"] = np.array(names, dtype=str)
    return arrays


def _is_part(value: object) -> bool:
    """Whether it is a Dataset, or a pair of images and classes, and no array or list."""
    if isinstance(value, np.ndarray | Tensor | list | Mapping):
        return False
    return isinstance(value, tuple) or (hasattr(value, "__getitem__") and hasattr(value, "__len__"))


def _part(value: object) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images, classes and the names of classes, of which there may be none."""
    if isinstance(value, tuple) and len(value) == 2:
        return _shrunk(_array(value[0], "images")), _array(value[1], "labels"), []
    if isinstance(value, tuple) or not _is_part(value):
        raise DataError(f"data of the type {type(value).__name__} came; {_KINDS}")
    images, labels = _items(value)
    return _shrunk(images), labels, _names(value)


def _items(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """All items of a Dataset."""
    count = len(dataset)
    if not count:
        raise DataError("the Dataset is empty; give one with images of every class")
    images, labels = None, np.empty(count, dtype=np.int64)
    for index in range(count):
        try:
            picture, label = dataset[index]
        except (TypeError, ValueError):
            raise DataError(
                f"item {index} of the Dataset is no pair; return (image, class number)"
            ) from None
        image = _array(picture, f"image {index}")
        if images is None:
            images = np.empty((count, *image.shape), dtype=image.dtype)
        if image.shape != images.shape[1:] or image.dtype != images.dtype:
            raise DataError(
                f"image {index} of the Dataset is {image.dtype} {image.shape}, but the first is "
                f"{images.dtype} {images.shape[1:]}; let its transform bring all to one size"
            )
        images[index], labels[index] = image, _class(label, index)
    if images is None or images.ndim not in (3, 4):
        shape = None if images is None else images.shape[1:]
        raise DataError(f"the Dataset's images have shape {shape}; give [c, h, w] or [h, w]")
    return images, labels


def _class(label: Any, index: int) -> int:
    value = np.asarray(label.detach().cpu() if isinstance(label, Tensor) else label)
    if value.size != 1 or value.dtype.kind not in "iu":
        raise DataError(
            f"the class of item {index} of the Dataset is {str(label)[:40]!r}; a whole number "
            "from 0 is needed"
        )
    return int(value.reshape(-1)[0])


def _names(dataset: Any) -> list[str]:
    """The names of the classes, where the Dataset, or the one that it is a subset of, has any."""
    for owner in (dataset, getattr(dataset, "dataset", None)):
        names = getattr(owner, "classes", None)
        if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
            return list(names)
    return []


def _array(value: Any, name: str) -> np.ndarray:
    """An array of a tensor, a picture of Pillow, an array or a list."""
    if isinstance(value, Tensor):
        return np.asarray(value.detach().cpu().numpy())
    if hasattr(value, "convert") and hasattr(value, "mode"):
        value = value if value.mode in ("L", "RGB") else value.convert("RGB")
    try:
        array = np.asarray(value)
    except ValueError:
        raise DataError(f"{name}: its parts have different shapes; bring all to one size") from None
    if array.dtype.kind == "O":
        raise DataError(f"{name}: a {type(value).__name__} came, an array of numbers is needed")
    return array


def _shrunk(array: np.ndarray) -> np.ndarray:
    """Floats that are bytes divided by 255, as most are, as these bytes; others as they are."""
    if array.dtype.kind != "f" or array.ndim < 3:
        return array
    pixels = array.astype(np.float32)
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        return array
    whole = np.rint(pixels * 255).astype(np.uint8)
    return whole if np.array_equal(whole.astype(np.float32) / np.float32(255), pixels) else array
