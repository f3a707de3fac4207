"""The snapshots of one expert in an HDF5 group, in float32 or in fewer bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.store.hdf5 import checked_dataset, get_json, put, put_json, read_array
from distill.store.snapshot_storage import (
    BLOCK,
    block_count,
    decode_delta,
    decode_nibbles,
    encode_delta,
    encode_nibbles,
    nibble_error,
    stated_error,
)

FULL_PRECISION = "float32"


@dataclass(frozen=True)
class Trajectory:
    """The recorded snapshots of one expert.

    Attributes:
        snapshots: [m, p].
        accuracies: validation accuracy (fraction) after each epoch [E]; None where not measured.
        epochs: the epoch of each snapshot, ascending from 0 (untrained) to E at most; None where
            all are kept and m = E+1.
    """

    snapshots: Tensor
    accuracies: Sequence[float | None]
    epochs: tuple[int, ...] | None = None


def put_trajectory(member: h5py.Group, index: int, expert: Trajectory, storage: str) -> float:
    """Write an expert's trajectory into an empty group; returns the largest error of a value.

    Raises:
        WorkError: if a snapshot to be stored in fewer bits holds NaN or infinite values.
    """
    largest = 0.0
    snapshots = expert.snapshots.cpu().numpy().astype(np.float32)
    if storage == FULL_PRECISION:
        put(member, "snapshots", snapshots, (1, snapshots.shape[1]))
    elif not np.isfinite(snapshots).all():
        raise WorkError(
            f"expert {index} holds NaN or infinite parameters, which {storage} cannot "
            "store; lower experts.lr"
        )
    else:
        largest = _put_deltas(member, snapshots, storage)
    put_json(member, "accuracies", list(expert.accuracies))
    if expert.epochs is not None:
        put_json(member, "epochs", list(expert.epochs))
    return largest


def _put_deltas(member: h5py.Group, snapshots: np.ndarray, storage: str) -> float:
    """Store snapshots [m, p] as a first one and deltas; returns their largest error."""
    first = snapshots[0]
    put(member, "first", first, None)
    if storage == "int4":
        errors = _put_nibbles(member, snapshots)
    else:
        rows = [encode_delta(first, snapshot, storage) for snapshot in snapshots[1:]]
        kind = np.float16 if storage == "float16" else np.uint16
        deltas = np.array([delta for delta, _ in rows], dtype=kind).reshape(-1, len(first))
        put(member, "deltas", deltas, (1, len(first)))
        put(member, "scales", np.array([scale for _, scale in rows], dtype=np.float64), None)
        errors = [stated_error(first, scale, storage) for _, scale in rows]
    put(member, "errors", np.array(errors, dtype=np.float64), None)
    return max(errors, default=0.0)


def _put_nibbles(member: h5py.Group, snapshots: np.ndarray) -> list[float]:
    """Store the deltas of snapshots [m, p] in 4 bits; returns the error of each after the first."""
    rows, errors, before = [], [], snapshots[0]
    for snapshot in snapshots[1:]:
        packed, steps, scale = encode_nibbles(before, snapshot)
        before = decode_nibbles(before, packed, steps, scale)
        rows.append((packed, steps, scale))
        errors.append(nibble_error(snapshot, steps, scale))
    blocks = block_count(snapshots.shape[1])
    width = blocks * BLOCK // 2
    deltas = np.array([packed for packed, _, _ in rows], dtype=np.uint8).reshape(-1, width)
    steps = np.array([steps for _, steps, _ in rows], dtype=np.float16).reshape(-1, blocks)
    put(member, "deltas", deltas, (1, width))
    put(member, "steps", steps, (1, blocks))
    put(member, "scales", np.array([scale for _, _, scale in rows], dtype=np.float64), None)
    return errors


@dataclass(frozen=True)
class StoredExpert:
    """One expert of an open file.

    A snapshot takes one row to read, or two in 16 bits; in 4 bits also all deltas before it.
    """

    group: h5py.Group

    @property
    def shape(self) -> tuple[int, int]:
        """(m, p)."""
        if "snapshots" in self.group:
            kept, values = self.group["snapshots"].shape
            return kept, values
        count, width = self.group["deltas"].shape
        (values,) = self.group["first"].shape
        expected = block_count(values) * BLOCK // 2 if "steps" in self.group else values
        return (count + 1, values if width == expected else -1)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epoch of each kept snapshot."""
        if "epochs" in self.group.attrs:
            return tuple(get_json(self.group, "epochs"))
        return tuple(range(self.shape[0]))

    def snapshots(self, indices: Iterable[int]) -> Iterator[Tensor]:
        """The kept snapshots [p] at `indices`; the first one is read once for all."""
        if "snapshots" in self.group:
            snapshots = checked_dataset(self.group, "snapshots")
            for index in indices:
                yield torch.from_numpy(snapshots[index])
            return
        scales = read_array(self.group, "scales")
        decode = self._sums if "steps" in self.group else self._deltas
        yield from (torch.from_numpy(row) for row in decode(indices, scales))

    def _deltas(self, indices: Iterable[int], scales: np.ndarray) -> Iterator[np.ndarray]:
        first = read_array(self.group, "first")
        for index in indices:
            if index == 0:
                yield first.copy()
            else:
                delta = checked_dataset(self.group, "deltas")[index - 1]
                yield decode_delta(first, delta, float(scales[index - 1]))

    def _sums(self, indices: Iterable[int], scales: np.ndarray) -> Iterator[np.ndarray]:
        """Running sums of the deltas; ascending indices share one pass."""
        first = read_array(self.group, "first")
        deltas, blocks = checked_dataset(self.group, "deltas"), checked_dataset(self.group, "steps")
        reached, current = 0, first
        for index in indices:
            if index < reached:
                reached, current = 0, first
            for row in range(reached, index):
                packed, steps = deltas[row], blocks[row]
                current = decode_nibbles(current, packed, steps, float(scales[row]))
            reached = index
            yield current.copy()
