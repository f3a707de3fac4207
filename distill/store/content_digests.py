"""Digests of what an HDF5 file holds, whatever its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from distill.store.attributes import DIGESTS
from distill.store.hdf5 import checked_dataset, open_unchecked

# Read at once.
_BLOCK_BYTES = 1 << 22


def digest_content(path: Path, kind: str, prefixes: tuple[str, ...], attributes: bool) -> str:
    """Digest of the datasets under `prefixes`, with the root attributes if `attributes`.

    Left out are `measured` and what `distill.store.attributes` adds.
    """
    total = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key in sorted({*item.attrs} - {DIGESTS}):
            total.update(f"{name}@{key}={item.attrs[key]!r};".encode())
        if isinstance(item, h5py.Dataset):
            total.update(f"{name}:{item.dtype}{item.shape};".encode())
            for block in _blocks(checked_dataset(item.parent, item.name)):
                total.update(block.tobytes())

    with open_unchecked(path, kind) as file:
        if attributes:
            for key in sorted({*file.attrs} - {"measured", DIGESTS}):
                total.update(f"@{key}={file.attrs[key]!r};".encode())
        for prefix in prefixes:
            item = file[prefix]
            add(prefix, item)
            if isinstance(item, h5py.Group):
                item.visititems(lambda name, child, prefix=prefix: add(f"{prefix}/{name}", child))
    return total.hexdigest()


def _blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """The numbers of a dataset in order, some megabytes at a time."""
    if not dataset.shape or not dataset.size:
        yield np.asarray(dataset[()])
        return
    row = dataset.nbytes // dataset.shape[0]
    if row > _BLOCK_BYTES and dataset.ndim > 2:
        size = max(1, dataset.shape[1] * _BLOCK_BYTES // row)
        for index in range(dataset.shape[0]):
            for start in range(0, dataset.shape[1], size):
                yield np.asarray(dataset[index, start : start + size])
        return
    size = max(1, _BLOCK_BYTES // max(1, row))
    for start in range(0, dataset.shape[0], size):
        yield np.asarray(dataset[start : start + size])


def digest_attribute(path: Path, kind: str, name: str) -> str:
    """Digest of a root attribute; raises WorkError if it is missing."""
    with open_unchecked(path, kind) as file:
        return hashlib.sha256(str(file.attrs[name]).encode()).hexdigest()
