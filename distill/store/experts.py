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
`storage` and `largest_error`. Where experts of several networks are matched, the root's attribute
`others` lists the further ones, [spec, parameters, number of experts] each; their experts follow
those of the first, in this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.store.hdf5 import create_h5, get_json, open_h5, put_json
from distill.store.trajectories import FULL_PRECISION, StoredExpert, Trajectory, put_trajectory
from synth.parameters import ParameterLayout

EXPERTS_KIND = "experts"


@dataclass(frozen=True)
class NetworkExperts:
    """The experts of one network in a file.

    Attributes:
        network: the network's spec.
        layout: its parameter names and shapes.
        experts: indices of its experts.
    """

    network: str
    layout: ParameterLayout
    experts: range


@dataclass(frozen=True)
class ExpertsInfo:
    """The header of experts.h5.

    Attributes:
        network: the network's spec; of several the first one's.
        data: digest of the data that the experts were trained on.
        count: number of experts, of all networks.
        epochs: E, the epochs that they were trained for.
        layout: parameter names and shapes of `network`.
        kept: the epochs whose snapshots every expert has.
        storage: float32, float16, bfloat16 or int4.
        largest_error: the most by which a value of any snapshot can differ from the recorded one.
        given: of experts of another program their layout, and the space of the images that they
            were trained on, "normalised" or "zca"; None for those of a run.
        others: the further networks, whose experts follow those of the first.
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
    others: tuple[NetworkExperts, ...] = ()

    @property
    def networks(self) -> tuple[NetworkExperts, ...]:
        """All networks, the first one first."""
        own = range(self.others[0].experts.start if self.others else self.count)
        return (NetworkExperts(self.network, self.layout, own), *self.others)


def write_experts(
    path: Path,
    network: str,
    data: str,
    layout: ParameterLayout,
    experts: Iterable[Trajectory],
    storage: str = FULL_PRECISION,
    given: tuple[str, str] | None = None,
    others: Sequence[NetworkExperts] = (),
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
        others: see `ExpertsInfo.others`.

    Raises:
        WorkError: if a snapshot to be stored in fewer bits holds NaN or infinite values.
    """
    with create_h5(path, EXPERTS_KIND) as file:
        file.attrs["network"] = network
        file.attrs["data"] = data
        if given is not None:
            file.attrs["layout"], file.attrs["space"] = given
        put_json(file, "parameters", _parameters(layout))
        if others:
            lines = [[own.network, _parameters(own.layout), len(own.experts)] for own in others]
            put_json(file, "others", lines)
        group = file.create_group("experts")
        largest = 0.0
        for index, expert in enumerate(experts):
            member = group.create_group(f"{index:04d}")
            largest = max(largest, put_trajectory(member, index, expert, storage))
        if storage != FULL_PRECISION:
            file.attrs["storage"] = storage
            file.attrs["largest_error"] = largest


def read_info(path: Path) -> ExpertsInfo:
    """Read the header of experts.h5.

    Raises:
        WorkError: if it is missing, foreign or damaged, or holds no experts of its own network.
    """
    with open_h5(path, EXPERTS_KIND) as file:
        experts = _experts(file)
        shapes = [expert.shape for expert in experts]
        kept = [expert.epochs for expert in experts]
        trained = [len(get_json(expert.group, "accuracies")) for expert in experts]
        layout = _layout(get_json(file, "parameters"))
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
            _others(file, len(experts)),
        )
    whole = all(len(own) == shape[0] > 0 for own, shape in zip(kept, shapes, strict=True))
    counts = [own.layout.count for own in info.networks for _ in own.experts]
    if not shapes or not whole or [shape[1] for shape in shapes] != counts:
        raise WorkError(f"{path} holds no experts that fit its own network; make it again")
    return info


def _others(file: h5py.File, count: int) -> tuple[NetworkExperts, ...]:
    """The further networks of a file of `count` experts."""
    lines = get_json(file, "others") if "others" in file.attrs else []
    first, found = count - sum(line[2] for line in lines), []
    for network, parameters, own in lines:
        found.append(NetworkExperts(network, _layout(parameters), range(first, first + own)))
        first += own
    return tuple(found)


def _parameters(layout: ParameterLayout) -> list[Any]:
    return [[name, list(shape)] for name, shape in zip(layout.names, layout.shapes, strict=True)]


def _layout(parameters: list[Any]) -> ParameterLayout:
    names = tuple(name for name, _ in parameters)
    return ParameterLayout(names, tuple(torch.Size(shape) for _, shape in parameters))


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
        trajectory = StoredExpert(file["experts"][name])
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
    """The snapshot [p] after the last epoch of every expert of the first network.

    Raises:
        WorkError: if the file cannot be read, or only a window without that epoch was kept.
    """
    info = read_info(path)
    last = (info.epochs, info.epochs)
    return [read_snapshots(path, index, last)[0] for index in info.networks[0].experts]


def _experts(file: h5py.File) -> list[StoredExpert]:
    return [StoredExpert(file["experts"][name]) for name in sorted(file["experts"])]
