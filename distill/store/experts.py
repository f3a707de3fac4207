"""experts.h5: expert trajectories, read two snapshots at a time.

/experts/0000/snapshots is float32 [E+1, p], one chunk per snapshot, each with a checksum; its
attribute `accuracies` holds the validation accuracy after each epoch. Root attributes: the
network's spec, its parameter names and shapes, and the data it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.store.hdf5 import create_h5, get_json, open_h5, put_json
from synth.parameters import ParameterLayout

KIND = "experts"


@dataclass(frozen=True)
class Trajectory:
    """Snapshots [E+1, p] of one expert, and its validation accuracy (fraction) per epoch [E]."""

    snapshots: Tensor
    accuracies: list[float]


@dataclass(frozen=True)
class ExpertsInfo:
    """What experts.h5 says of itself.

    Attributes:
        network: the network's spec.
        data: digest of the data that the experts were trained on.
        count: number of experts.
        epochs: E.
        layout: parameter names and shapes.
    """

    network: str
    data: str
    count: int
    epochs: int
    layout: ParameterLayout


def write_experts(
    path: Path, network: str, data: str, layout: ParameterLayout, experts: Iterable[Trajectory]
) -> None:
    """Write experts.h5 atomically, one trajectory in memory at a time."""
    with create_h5(path, KIND) as file:
        file.attrs["network"] = network
        file.attrs["data"] = data
        parameters = zip(layout.names, layout.shapes, strict=True)
        put_json(file, "parameters", [[name, list(shape)] for name, shape in parameters])
        group = file.create_group("experts")
        for index, expert in enumerate(experts):
            member = group.create_group(f"{index:04d}")
            snapshots = expert.snapshots.cpu().numpy().astype(np.float32)
            member.create_dataset(
                "snapshots",
                data=snapshots,
                chunks=(1, snapshots.shape[1]),
                fletcher32=True,
                track_times=False,
            )
            put_json(member, "accuracies", expert.accuracies)


def read_info(path: Path) -> ExpertsInfo:
    """Read what experts.h5 says of itself."""
    with open_h5(path, KIND) as file:
        parameters = get_json(file, "parameters")
        shapes = [dataset.shape for dataset in _snapshots(file)]
        layout = ParameterLayout(
            tuple(name for name, _ in parameters),
            tuple(torch.Size(shape) for _, shape in parameters),
        )
        info = ExpertsInfo(
            str(file.attrs["network"]),
            str(file.attrs["data"]),
            len(shapes),
            min((shape[0] for shape in shapes), default=1) - 1,
            layout,
        )
    if not shapes or any(shape[1] != layout.count for shape in shapes):
        raise WorkError(f"{path} holds no experts that fit its own network; make it again")
    return info


def read_snapshots(path: Path, expert: int, epochs: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two snapshots [p] of one expert; nothing else of the file is read."""
    with open_h5(path, KIND) as file:
        dataset = file[f"experts/{expert:04d}/snapshots"]
        first, second = (torch.from_numpy(dataset[epoch]) for epoch in epochs)
    return first, second


def check_snapshots(path: Path) -> None:
    """Read every snapshot once, so that each one's checksum is checked."""
    with open_h5(path, KIND) as file:
        for dataset in _snapshots(file):
            for epoch in range(len(dataset)):
                dataset[epoch]


def read_last_snapshots(path: Path) -> list[Tensor]:
    """The last snapshot [p] of every expert."""
    with open_h5(path, KIND) as file:
        return [torch.from_numpy(dataset[-1]) for dataset in _snapshots(file)]


def _snapshots(file: h5py.File) -> list[h5py.Dataset]:
    return [file["experts"][name]["snapshots"] for name in sorted(file["experts"])]
