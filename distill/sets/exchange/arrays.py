"""All of set.h5 as named arrays and one text, for other formats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from distill.errors import WorkError
from distill.sets.set_file import SET_KIND, read_set
from distill.store.attributes import DIGESTS
from distill.store.documents import parse_json
from distill.store.files import atomic_path
from distill.store.foreign import is_plain, load_npz, load_torch
from distill.store.hdf5 import create_h5, open_h5, put, read_array
from distill.store.seals import SEAL
from synth.images import gather

META = "limbeck"

_ARRAY_ERRORS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class Archive:
    """The content of a set.h5.

    Attributes:
        arrays: every data set by its path in the file, such as "images" or "labels/learned"; of a
            set of coded images both "coded" and the "images" that they decode to.
        attributes: every group's attributes by its path, "" for the file's own; plain values.
    """

    arrays: dict[str, np.ndarray]
    attributes: dict[str, dict[str, Any]]

    def meta(self) -> str:
        """The attributes as JSON, with a digest of everything as one more key."""
        return json.dumps({**self.attributes, SEAL: self.digest()}, sort_keys=True)

    def digest(self) -> str:
        """sha256 of the attributes, and of the arrays with their names, types and shapes."""
        total = hashlib.sha256(json.dumps(self.attributes, sort_keys=True).encode())
        for name, array in sorted(self.arrays.items()):
            value = np.ascontiguousarray(array)
            total.update(f"{name}:{value.dtype.str}{value.shape};".encode())
            total.update(value.data)
        return total.hexdigest()


def read_archive(path: Path) -> Archive:
    """All that a set.h5 holds.

    Raises:
        WorkError: if it is missing, foreign or damaged.
    """
    content = read_set(path)
    arrays: dict[str, np.ndarray] = {}
    if content.coded is not None:
        arrays["images"] = gather(content.images).numpy()
    with open_h5(path, SET_KIND) as file:
        attributes = {"": _plain(file)}

        def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                arrays[name] = read_array(item.parent, item.name)
            else:
                attributes[name] = _plain(item)

        file.visititems(add)
    return Archive(arrays, attributes)


@contextmanager
def new_set(path: Path, origin: Path) -> Iterator[Path]:
    """A place to write a set to; it is read again, and moved to `path` if it is whole.

    Args:
        path: the new set.h5.
        origin: where its content comes from, for the message.

    Raises:
        WorkError: if it is no whole set; nothing of it is left.
    """
    with atomic_path(path) as fresh:
        try:
            yield fresh
            read_set(fresh)
        except WorkError as error:
            reason = str(error).replace(str(fresh), "it")
            raise WorkError(f"{origin} holds no whole set: {reason}") from None


def write_archive(path: Path, arrays: dict[str, np.ndarray], meta: str, origin: Path) -> None:
    """Write arrays and attributes as set.h5, see `new_set`.

    Args:
        path: the new set.h5.
        arrays: as `Archive.arrays`.
        meta: as `Archive.meta` gives it; older ones hold no digest.
        origin: where they come from, for the message.

    Raises:
        WorkError: if they are not those of a set, or not as they were exported.
    """
    try:
        attributes = parse_json(meta)
        stated = attributes.pop(SEAL, None)
        if stated not in (None, Archive(arrays, attributes).digest()):
            raise ValueError("it is not as it was exported: its digest does not fit")
        with new_set(path, origin) as fresh, create_h5(fresh, SET_KIND) as file:
            for name, array in sorted(arrays.items()):
                if name == "images" and "coded" in arrays:
                    continue  # decoded for other programs; the set holds them once
                put(file, name, np.ascontiguousarray(array), None)
            for group, values in attributes.items():
                item = file.require_group(group) if group else file
                for key, value in values.items():
                    item.attrs[key] = value
    except _ARRAY_ERRORS as error:
        raise WorkError(
            f"{origin} is not a whole exported set ({error}); export the set again"
        ) from None


def from_npz(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """The arrays and attributes that `write_npz` wrote; None for those of another's file."""
    arrays = load_npz(path)
    meta = arrays.pop(META, None)
    return arrays, None if meta is None else str(meta)


def from_safetensors(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """As `from_npz`, for `write_safetensors`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, (file.metadata() or {}).get(META)
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise WorkError(
            f"{path} cannot be read as safetensors ({error}); export it again"
        ) from None


def from_torch(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """As `from_npz`, for `write_torch`."""
    content = load_torch(path)
    if not isinstance(content, dict) or META not in content:
        return {}, None
    meta = str(content.pop(META))
    if not all(map(is_plain, content.values())):
        raise WorkError(f"{path} is not a whole exported set; export the set again")
    return {str(name): np.asarray(tensor.numpy()) for name, tensor in content.items()}, meta


def _plain(item: h5py.Group) -> dict[str, Any]:
    # NumPy's scalars become Python's, which HDF5 stores as the same types again.
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in sorted(item.attrs.items())
        if key != DIGESTS
    }
