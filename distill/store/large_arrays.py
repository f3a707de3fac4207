"""Large arrays in HDF5, read and written in blocks."""

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

from distill.store.hdf5 import DAMAGE, checked_dataset, damaged, put

# Larger arrays are read in blocks.
HELD_BYTES = 1 << 28

# Bytes that are written at a time, and bytes of a chunk.
_BLOCK_BYTES = 1 << 24

_CHUNK_BYTES = 1 << 20


def is_large(shape: Iterable[int], itemsize: int) -> bool:
    """Whether an array is read in blocks."""
    return math.prod(shape) * itemsize > HELD_BYTES


@dataclass(eq=False)
class StoredArray:
    """A large array in a file; rows are read when they are indexed.

    It serves as `synth.images.Images`, and as the logits of
    `synth.committee.relabel.StoredVotes`. Once opened, it keeps reading its file,
    even if another one replaces it.

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

    def __getitem__(self, index: Any, /) -> Tensor:
        """Rows at an index, a slice or int64 [b]; or `[row, slice]` of a row.

        Raises:
            WorkError: if they cannot be read, or their checksums do not fit.
        """
        try:
            if isinstance(index, Tensor):
                return self._rows(index.tolist())
            return torch.from_numpy(np.asarray(self._opened()[index]))
        except DAMAGE as error:
            raise damaged(self.path, error) from None

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """All rows in their order, `split_size` at a time."""
        for start in range(0, len(self), split_size):
            yield self[start : start + split_size]

    def _rows(self, indices: list[int]) -> Tensor:
        dataset = self._opened()
        rows = np.empty((len(indices), *self.shape[1:]), dataset.dtype)
        for row, index in zip(rows, indices, strict=True):
            dataset.read_direct(row, np.s_[index])
        return torch.from_numpy(rows)

    def _opened(self) -> h5py.Dataset:
        if self._dataset is None:
            # Consecutive rows share a chunk: a few chunks are cached.
            file = h5py.File(self.path, "r", rdcc_nbytes=8 * _CHUNK_BYTES)
            self._dataset = checked_dataset(file, self.name)
        return self._dataset


def read_large(group: h5py.Group, name: str, dtype: type[np.floating]) -> Tensor | StoredArray:
    """A dataset whole, or as `StoredArray` where it is large; see `checked_dataset`.

    Raises:
        OSError: also if its numbers are not of the type in which `put_large` stores them.
    """
    dataset = checked_dataset(group, name)
    if dataset.dtype.newbyteorder("=") != np.dtype(dtype):
        raise OSError(f"{name} holds {dataset.dtype} where {np.dtype(dtype)} is needed")
    if is_large(dataset.shape, dataset.dtype.itemsize):
        return StoredArray(Path(dataset.file.filename), dataset.name, torch.Size(dataset.shape))
    return torch.from_numpy(np.asarray(dataset[()]))


def put_large(
    group: h5py.Group,
    name: str,
    values: Any,
    dtype: type[np.floating],
    chunks: tuple[int, ...] | None = None,
) -> None:
    """Store an array with checksums, in blocks if it is large.

    Args:
        group: of the file that is being written.
        name: of the dataset.
        values: a tensor, `synth.images.Images` or `synth.committee.relabel.VotedLogits`.
        dtype: in which it is stored.
        chunks: of an array that is not large; None for a single one.
    """
    shape = tuple(values.shape)
    if not is_large(shape, np.dtype(dtype).itemsize):
        whole = values if isinstance(values, Tensor) else torch.cat(list(values.split(len(values))))
        put(group, name, whole.cpu().numpy().astype(dtype, copy=False), chunks)
        return
    row = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    dataset = group.create_dataset(
        name, shape, dtype, chunks=_chunks(shape, row), fletcher32=True, track_times=False
    )
    for index, block in _blocks(values, row):
        dataset[index] = block.cpu().numpy()


def _blocks(values: Any, row: int) -> Iterator[tuple[Any, Tensor]]:
    """Blocks of images [n, c, h, w] or logits [e, n, k], each with its index."""
    if len(values.shape) == 4:
        start = 0
        for block in values.split(max(1, _BLOCK_BYTES // row)):
            yield slice(start, start + len(block)), block
            start += len(block)
        return
    count = values.shape[1]
    size = max(1, count * _BLOCK_BYTES // row)
    for row_index in range(values.shape[0]):
        for start in range(0, count, size):
            index = (row_index, slice(start, min(start + size, count)))
            yield index, values[index]


def _chunks(shape: tuple[int, ...], row: int) -> tuple[int, ...]:
    """Chunks of about a megabyte: whole images, or a slice of an epoch's logits."""
    if len(shape) == 4:
        return (max(1, min(shape[0], _CHUNK_BYTES // row)), *shape[1:])
    return (1, max(1, min(shape[1], shape[1] * _CHUNK_BYTES // row)), *shape[2:])
