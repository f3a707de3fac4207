"""experts.h5: expert trajectories, read two snapshots at a time.

With storage float32, /experts/0000/snapshots is float32 [m, p], one chunk per snapshot, each with a
checksum. With float16 or bfloat16, /experts/0000/first is the first kept snapshot, float32 [p], and
row i of /experts/0000/deltas [m-1, p] is kept snapshot i+1 less the first one, divided by the i-th
of `scales` [m-1]; bfloat16 is stored as its bits, in uint16. `errors` [m-1] is the most by which a
value of each snapshot can differ from the recorded one. With
int4, row i of `deltas` [m-1, b * 32] is uint8, two 4-bit values to a byte, and kept snapshot i+1
less the one before it; `steps` [m-1, b] float16 are those of its b blocks; see
`distill.store.snapshot_storage`.

An expert's attribute `accuracies` holds the validation accuracy after each epoch, and `epochs`
which epochs are kept, where that is not all of them (m = E+1). Root attributes: the network's
spec, its parameter names and shapes, the data it was trained on and, below float32,
`storage` and `largest_error`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.store.hdf5 import (
    checked_dataset,
    create_h5,
    get_json,
    open_h5,
    put,
    put_json,
    read_array,
)
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
from synth.parameters import ParameterLayout

EXPERTS_KIND = "experts"

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


@dataclass(frozen=True)
class ExpertsInfo:
    """The header of experts.h5.

    Attributes:
        network: the network's spec.
        data: digest of the data that the experts were trained on.
        count: number of experts.
        epochs: E, the epochs that they were trained for.
        layout: parameter names and shapes.
        kept: the epochs whose snapshots every expert has.
        storage: float32, float16, bfloat16 or int4.
        largest_error: the most by which a value of any snapshot can differ from the recorded one.
        given: of experts of another program their layout, and the space of the images that they
            were trained on, "normalised" or "zca"; None for those of a run.
    """

    network: str
    data: str
    count: int
    epochs: int
    layout: ParameterLayout
    kept: tuple[int, ...] = ()
    storage: str = FULL_PRECISION
    largest_error: float = 0.0
    given: tuple[str, str] | None = None


def write_experts(
    path: Path,
    network: str,
    data: str,
    layout: ParameterLayout,
    experts: Iterable[Trajectory],
    storage: str = FULL_PRECISION,
    given: tuple[str, str] | None = None,
) -> None:
    """Write experts.h5 atomically, one trajectory in memory at a time.

    Args:
        path: where.
        network: the network's spec.
        data: digest of the data that the experts were trained on.
        layout: the network's parameters.
        experts: one trajectory after the other.
        storage: "float32" keeps every bit; "float16" and "bfloat16" halve the bytes and "int4"
            divides them by 7.5, with an error that the file states.
        given: see `ExpertsInfo.given`.

    Raises:
        WorkError: if a snapshot to be stored in fewer bits holds NaN or infinite values.
    """
    with create_h5(path, EXPERTS_KIND) as file:
        file.attrs["network"] = network
        file.attrs["data"] = data
        if given is not None:
            file.attrs["layout"], file.attrs["space"] = given
        parameters = zip(layout.names, layout.shapes, strict=True)
        put_json(file, "parameters", [[name, list(shape)] for name, shape in parameters])
        group = file.create_group("experts")
        largest = 0.0
        for index, expert in enumerate(experts):
            member = group.create_group(f"{index:04d}")
            snapshots = expert.snapshots.cpu().numpy().astype(np.float32)
            if storage == FULL_PRECISION:
                put(member, "snapshots", snapshots, (1, snapshots.shape[1]))
            elif not np.isfinite(snapshots).all():
                raise WorkError(
                    f"expert {index} holds NaN or infinite parameters, which {storage} cannot "
                    "store; lower experts.lr"
                )
            else:
                largest = max(largest, _put_deltas(member, snapshots, storage))
            put_json(member, "accuracies", list(expert.accuracies))
            if expert.epochs is not None:
                put_json(member, "epochs", list(expert.epochs))
        if storage != FULL_PRECISION:
            file.attrs["storage"] = storage
            file.attrs["largest_error"] = largest


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
class _StoredExpert:
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


def read_info(path: Path) -> ExpertsInfo:
    """Read the header of experts.h5.

    Raises:
        WorkError: if it is missing, foreign or damaged, or holds no experts of its own network.
    """
    with open_h5(path, EXPERTS_KIND) as file:
        parameters = get_json(file, "parameters")
        experts = _experts(file)
        shapes = [expert.shape for expert in experts]
        kept = [expert.epochs for expert in experts]
        trained = [len(get_json(expert.group, "accuracies")) for expert in experts]
        layout = ParameterLayout(
            tuple(name for name, _ in parameters),
            tuple(torch.Size(shape) for _, shape in parameters),
        )
        info = ExpertsInfo(
            str(file.attrs["network"]),
            str(file.attrs["data"]),
            len(experts),
            min(trained, default=0),
            layout,
            tuple(sorted(set(kept[0]).intersection(*kept[1:]))) if kept else (),
            str(file.attrs.get("storage", FULL_PRECISION)),
            float(file.attrs.get("largest_error", 0.0)),
            (str(file.attrs["layout"]), str(file.attrs["space"]))
            if "space" in file.attrs
            else None,
        )
    whole = all(len(own) == shape[0] > 0 for own, shape in zip(kept, shapes, strict=True))
    if not shapes or not whole or any(shape[1] != layout.count for shape in shapes):
        raise WorkError(f"{path} holds no experts that fit its own network; make it again")
    return info


def _given(file: h5py.File) -> tuple[str, str] | None:
    return (str(file.attrs["layout"]), str(file.attrs["space"])) if "space" in file.attrs else None


def read_snapshots(path: Path, expert: int, epochs: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two snapshots [p] float32 of one expert; nothing else of the file is read.

    With fewer bits than float32 they differ from the recorded ones by at most the errors that the
    file states.

    Raises:
        WorkError: if the file cannot be read, or does not hold this expert or these epochs.
    """
    with open_h5(path, EXPERTS_KIND) as file:
        name = f"{expert:04d}"
        if name not in file["experts"]:
            raise WorkError(
                f"{path} holds {len(file['experts'])} experts, so there is no expert {expert}; "
                "raise experts.count and run the stage experts"
            )
        trajectory = _StoredExpert(file["experts"][name])
        kept = trajectory.epochs
        missing = [epoch for epoch in epochs if epoch not in kept]
        if missing:
            raise WorkError(
                f"{path} holds epochs {_ranges_text(kept)} of expert {expert}, not "
                f"{_ranges_text(missing)}; "
                'set experts.keep="all", or a window that reads them, and run the stage experts'
            )
        first, second = trajectory.snapshots([kept.index(epoch) for epoch in epochs])
    return first, second


def _ranges_text(epochs: Iterable[int]) -> str:
    """Epochs as ranges: 0-4, 7."""
    runs: list[list[int]] = []
    for epoch in sorted(set(epochs)):
        if runs and epoch == runs[-1][1] + 1:
            runs[-1][1] = epoch
        else:
            runs.append([epoch, epoch])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def check_snapshots(path: Path) -> None:
    """Read every snapshot once, so that each one's checksum is checked."""
    with open_h5(path, EXPERTS_KIND) as file:
        for expert in _experts(file):
            for _ in expert.snapshots(range(expert.shape[0])):
                pass


def read_last_snapshots(path: Path) -> list[Tensor]:
    """The snapshot [p] after the last epoch of every expert.

    Raises:
        WorkError: if the file cannot be read, or only a window without that epoch was kept.
    """
    info = read_info(path)
    last = (info.epochs, info.epochs)
    return [read_snapshots(path, index, last)[0] for index in range(info.count)]


def _experts(file: h5py.File) -> list[_StoredExpert]:
    return [_StoredExpert(file["experts"][name]) for name in sorted(file["experts"])]
