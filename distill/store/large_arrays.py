"""Arrays of a file that are read and written by parts: what is larger than memory, or may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.store.hdf5 import DAMAGE, damaged, put, stored

# A larger array is never held whole where its reader can do without.
HELD_BYTES = 1 << 28

# So many bytes are written at a time, and lie together in a chunk.
_PART_BYTES = 1 << 24

_CHUNK_BYTES = 1 << 20


def is_large(shape: Iterable[int], itemsize: int) -> bool:
    """Whether an array is to be read by parts."""
    return math.prod(shape) * itemsize > HELD_BYTES


@dataclass(eq=False)
class StoredRows:
    """A large array in a file, of which the rows that are asked for are read.

    It serves as `synth.images.Images`, and as the logits of
    `synth.committee.relabel.StoredVotes`. The file may be replaced by another one: what was opened
    stays.

    Attributes:
        path: of the HDF5 file.
        name: of the dataset in it.
        shape: of the array.
    """

    path: Path
    name: str
    shape: torch.Size
    _dataset: h5py.Dataset | None = field(default=None, init=False, repr=False)

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dataset": None}

    def __getitem__(self, places: Any, /) -> Tensor:
        """Rows at an index, a slice or int64 [b]; or `[row, slice]` of a row.

        Raises:
            WorkError: if they cannot be read, or their checksums do not fit.
        """
        try:
            if isinstance(places, Tensor):
                return self._rows(places.tolist())
            return torch.from_numpy(np.asarray(self._opened()[places]))
        except DAMAGE as error:
            raise damaged(self.path, error) from None

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """All rows in their order, `split_size` at a time."""
        for start in range(0, len(self), split_size):
            yield self[start : start + split_size]

    def _rows(self, places: list[int]) -> Tensor:
        dataset = self._opened()
        found = np.empty((len(places), *self.shape[1:]), dataset.dtype)
        for row, place in zip(found, places, strict=True):
            dataset.read_direct(row, np.s_[place])
        return torch.from_numpy(found)

    def _opened(self) -> h5py.Dataset:
        if self._dataset is None:
            # Rows of a chunk are asked for one after another: a few chunks are kept.
            file = h5py.File(self.path, "r", rdcc_nbytes=8 * _CHUNK_BYTES)
            self._dataset = stored(file, self.name)
        return self._dataset


def read_rows(group: h5py.Group, name: str) -> Tensor | StoredRows:
    """A dataset whole, or as `StoredRows` where it is large; see `stored`."""
    dataset = stored(group, name)
    if is_large(dataset.shape, dataset.dtype.itemsize):
        return StoredRows(Path(dataset.file.filename), dataset.name, torch.Size(dataset.shape))
    return torch.from_numpy(np.asarray(dataset[()]))


def put_rows(
    group: h5py.Group,
    name: str,
    rows: Any,
    dtype: type[np.floating],
    chunks: tuple[int, ...] | None = None,
) -> None:
    """Store an array with checksums: at once, or by parts where it is large.

    Args:
        group: of the file that is being written.
        name: of the dataset.
        rows: a tensor, `synth.images.Images` or `synth.committee.relabel.VotedLogits`.
        dtype: in which it is stored.
        chunks: of an array that is not large; None for a single one.
    """
    shape = tuple(rows.shape)
    if not is_large(shape, np.dtype(dtype).itemsize):
        whole = rows if isinstance(rows, Tensor) else torch.cat(list(rows.split(len(rows))))
        put(group, name, whole.cpu().numpy().astype(dtype, copy=False), chunks)
        return
    row = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    dataset = group.create_dataset(
        name, shape, dtype, chunks=_chunks(shape, row), fletcher32=True, track_times=False
    )
    for place, part in _parts(rows, row):
        dataset[place] = part.cpu().numpy()


def _parts(rows: Any, row: int) -> Iterator[tuple[Any, Tensor]]:
    """Parts of images [n, c, h, w] or logits [e, n, k], each with its place."""
    if len(rows.shape) == 4:
        start = 0
        for part in rows.split(max(1, _PART_BYTES // row)):
            yield slice(start, start + len(part)), part
            start += len(part)
        return
    count = rows.shape[1]
    size = max(1, count * _PART_BYTES // row)
    for index in range(rows.shape[0]):
        for start in range(0, count, size):
            place = (index, slice(start, min(start + size, count)))
            yield place, rows[place]


def _chunks(shape: tuple[int, ...], row: int) -> tuple[int, ...]:
    """About a megabyte: some images, which are never cut, or a piece of an epoch's logits."""
    if len(shape) == 4:
        return (max(1, min(shape[0], _CHUNK_BYTES // row)), *shape[1:])
    return (1, max(1, min(shape[1], shape[1] * _CHUNK_BYTES // row)), *shape[2:])
