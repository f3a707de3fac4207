"""Digests of the attributes of an HDF5 file, whose texts have no checksum of HDF5's own.

Every object that has attributes gets one more, `digests`: JSON, from the name of each other one to
the first 16 hexadecimal digits of the SHA-256 of its value. Each attribute has a digest of its own,
so that a damaged one does not cost what lies beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

DIGESTS = "digests"

# Where an attribute of the file itself stands.
ROOT = ""


def seal_attributes(file: h5py.File) -> None:
    """Give every object that has attributes the digests of them."""
    for _, item in _objects(file):
        digests = _digests(item)
        if digests:
            item.attrs[DIGESTS] = json.dumps(digests, sort_keys=True)


def attribute_name(place: str, name: str) -> str:
    """How `broken_attributes` names one: the object's path, and its name."""
    return f"{place}@{name}"


def broken_attributes(path: Path) -> tuple[str, ...] | None:
    """The attributes of a file that do not fit their digests; None where it holds none.

    A file that has not changed since is not read again.
    """
    status = path.stat()
    return _broken(path, status.st_size, status.st_mtime_ns, status.st_ino)


def within(name: str, parts: Iterable[str]) -> bool:
    """Whether an attribute is one of `parts`, or of an object that is, or lies below one."""
    place = name.partition("@")[0]
    return any(name == part or place == part or place.startswith(f"{part}/") for part in parts)


@lru_cache(maxsize=64)
def _broken(path: Path, size: int, changed: int, node: int) -> tuple[str, ...] | None:
    with h5py.File(path, "r") as file:
        if DIGESTS not in file.attrs:
            return None
        return tuple(
            attribute_name(place, name)
            for place, item in _objects(file)
            for name in _differing(item)
        )


def _differing(item: h5py.Group | h5py.Dataset) -> list[str]:
    found = _digests(item)
    stated = _stated(item)
    names = {*found, *stated}
    return sorted(name for name in names if found.get(name) != stated.get(name))


def _stated(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The digests that an object holds; none where these are damaged themselves."""
    try:
        stated = json.loads(item.attrs.get(DIGESTS, "{}"))
    except (ValueError, TypeError, RecursionError):
        return {}
    return stated if isinstance(stated, dict) else {}


def _objects(file: h5py.File) -> list[tuple[str, h5py.Group | h5py.Dataset]]:
    """The file itself and all that lies in it, by their paths in it."""
    objects: list[tuple[str, h5py.Group | h5py.Dataset]] = [(ROOT, file)]
    file.visititems(lambda name, item: objects.append((name, item)))
    return objects


def _digests(item: h5py.Group | h5py.Dataset) -> dict[str, str]:
    return {name: _digest(item.attrs[name]) for name in sorted(item.attrs) if name != DIGESTS}


def _digest(value: Any) -> str:
    """Of the value alone: libraries of other versions may spell it in other ways."""
    if isinstance(value, str):
        content = b"text:" + value.encode("utf-8", "surrogateescape")
    else:
        array = np.asarray(value)
        # Objects, which we never write, have no bytes of their own.
        plain = array.tobytes() if array.dtype.kind in "biufS" else b""
        content = f"{array.dtype.str}{array.shape}:".encode() + plain
    return hashlib.sha256(content).hexdigest()[:16]
