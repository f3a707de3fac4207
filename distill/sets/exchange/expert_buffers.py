"""Experts that another program trained, as experts.h5: the replay buffers of MTT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.data import RealData, fit_preprocess, fit_zca
from distill.errors import RecipeError, WorkError
from distill.recipes.build import build_data, build_network
from distill.sets.exchange.convert import ImportOptions, named_recipe
from distill.store.experts import write_experts
from distill.store.foreign import is_plain, load_torch
from distill.store.trajectories import Trajectory
from synth.images import gather
from synth.parameters import ParameterLayout, parameter_layout
from synth.training.prediction import accuracy

_BUFFER = re.compile(r"replay_buffer_(\d+)\.pt")


def read_buffers(path: Path) -> Iterator[tuple[Path, list[Any]]]:
    """MTT: replay_buffer_N.pt, each a list of experts; a file, or all of a folder in order.

    An expert is a list of snapshots, the untrained network's and that of each epoch; a snapshot is
    a list of parameters in the network's order. One file is in memory at a time.
    Source: mtt-distillation, buffer.py; those of TESLA, DATM and others are alike.

    Yields:
        (file, its experts).

    Raises:
        WorkError: if there is none, or it holds something else.
    """
    files = [path]
    if path.is_dir():
        numbered = [(int(m[1]), f) for f in path.iterdir() if (m := _BUFFER.fullmatch(f.name))]
        files = [file for _, file in sorted(numbered)]
    if not files:
        raise WorkError(f"{path} holds no replay_buffer_N.pt; name a folder that does")
    for file in files:
        experts = load_torch(file)
        if not isinstance(experts, list | tuple) or not experts:
            raise WorkError(f"{file} holds no list of experts; name a replay_buffer_N.pt of MTT")
        yield file, list(experts)


def import_experts(
    experts: Iterator[tuple[Path, list[Any]]], out: Path, options: ImportOptions, origin: str
) -> tuple[str, ...]:
    """Write experts.h5, which `--reuse` takes where its network, data and space are a recipe's.

    Args:
        experts: as `read_buffers` yields them.
        out: the file to write.
        options: the network, the real data, and whether these were whitened ("zca") or normalised.
        origin: the layout's name.

    Returns:
        Sentences on what the experts are.

    Raises:
        RecipeError: if the real data or the space are not given.
        WorkError: if an expert is not one of the network on these data.
    """
    if not options.data or options.space not in ("zca", "normalised"):
        raise RecipeError(
            "experts fit one network, data and space; give --network, --data and --space "
            "normalised, or --space zca where they were trained on whitened images"
        )
    whitened = options.space == "zca"
    data = build_data(named_recipe(options, whitened=whitened).data)
    network = build_network(options.network, data.channels, data.size, data.classes, seed=0)
    layout = parameter_layout(network)
    lengths: list[int] = []
    tested: list[float] = []

    def trajectories() -> Iterator[Trajectory]:
        for file, members in experts:
            for member in members:
                snapshots = _snapshots(file, member, layout, options.network)
                if not tested:
                    _load(network, layout, snapshots[-1])
                    tested.append(_tested(network, data, whitened=whitened))
                lengths.append(len(snapshots))
                unknown: list[float | None] = [None] * (len(snapshots) - 1)
                yield Trajectory(snapshots, unknown)

    write_experts(
        out, options.network, data.digest, layout, trajectories(), given=(origin, options.space)
    )
    return (
        f"{len(lengths)} experts of {options.network}, {min(lengths) - 1} epochs",
        f"the first one classifies {100 * tested[0]:.1f} % of the validation images after its last "
        "epoch: far less than where it was made means another network, data or space",
    )


def _snapshots(file: Path, expert: Any, layout: ParameterLayout, network: str) -> Tensor:
    """The snapshots [m, p] of one expert, checked."""
    if not isinstance(expert, list | tuple) or len(expert) < 2:
        raise WorkError(f"{file} holds an expert without epochs; name a replay_buffer_N.pt of MTT")
    return torch.stack([_vector(file, snapshot, layout, network) for snapshot in expert])


def _vector(file: Path, snapshot: Any, layout: ParameterLayout, network: str) -> Tensor:
    """The parameters [p] of a snapshot."""
    if not isinstance(snapshot, list | tuple) or not all(map(is_plain, snapshot)):
        raise WorkError(f"{file} holds no lists of plain parameters; name a replay buffer of MTT")
    shapes = [tuple(parameter.shape) for parameter in snapshot]
    wanted = [tuple(shape) for shape in layout.shapes]
    if shapes != wanted:
        raise WorkError(f"{file} {_misfit(shapes, wanted, network)}")
    vector = torch.cat([parameter.detach().float().flatten() for parameter in snapshot])
    if not bool(vector.isfinite().all()):
        raise WorkError(f"{file} holds an expert that diverged (NaN or infinite); leave it out")
    return vector


def _misfit(
    shapes: Sequence[tuple[int, ...]], wanted: Sequence[tuple[int, ...]], network: str
) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(shapes, wanted, strict=False)) if a != b), len(wanted)
    )
    differs = (
        f"parameter {place} is {shapes[place]}, there {wanted[place]}"
        if place < min(len(shapes), len(wanted))
        else "the others are alike"
    )
    return (
        f"holds experts of {len(shapes)} parameters, not the {len(wanted)} of {network}: "
        f"{differs}; give --network, --size and --channels of the experts"
    )


def _load(network: torch.nn.Module, layout: ParameterLayout, vector: Tensor) -> None:
    network.load_state_dict(layout.unflatten(vector), strict=False)


def _tested(network: torch.nn.Module, data: RealData, *, whitened: bool) -> float:
    """The accuracy of a network on the validation images, as a run of a recipe would see them."""
    fit = fit_zca if whitened else fit_preprocess
    images = fit(data.train.images)(gather(data.validation.images))
    return accuracy(network, images, data.validation.labels)
