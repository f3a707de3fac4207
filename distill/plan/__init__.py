"""What a recipe would cost: parameters, disk, memory and time, without its data where possible."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

import projectors
from distill.errors import WorkError
from distill.machine import core_count, resident_bytes
from distill.plan.calibration import (
    Calibration,
    Timed,
    read_calibration,
    weakest,
    write_calibration,
)
from distill.plan.clock import QUICK, THOROUGH, Clock
from distill.plan.sizes import (
    committee_file,
    expert_buffer,
    image_bytes,
    label_bytes,
    network_specs,
    set_file,
)
from distill.plan.stage_memory import StageMemory, stage_memory
from distill.plan.times import StageTime, stage_times, time_of
from distill.plan.within import as_settings, find_settings
from distill.recipes.build import choose_device
from distill.recipes.checks import check_names
from distill.recipes.compiling import resolve_compile, without_compilation
from distill.recipes.schema import Recipe
from distill.recipes.tables.select import SelectTable
from distill.run.engines import Local
from distill.sets.narrow import narrow_members
from distill.stages.match.memory import matching_peaks
from distill.stages.units.networks import Units
from distill.stages.units.search import planned_search, search_units
from distill.stages.units.shapes import DataShape, data_shape, meta_network, parameter_count

__all__ = ["Machines", "make_plan"]


@dataclass(frozen=True)
class Machines:
    """The machines that a plan is priced for.

    Attributes:
        nodes: machines.
        gpus: devices of each.
        workers: processes that train networks at once, as `distill run --workers` has it.
        calibration: a file of times that were measured on one such device; None measures here.
        calibrate: a file to which the times that were measured here are written, or None. They are
            then measured thoroughly, and what a run would compile is compiled.
    """

    nodes: int = 1
    gpus: int = 1
    workers: int | Literal["auto"] = "auto"
    calibration: Path | None = None
    calibrate: Path | None = None


def make_plan(
    recipe: Recipe, machines: Machines | None = None, *, within: float | None = None
) -> dict[str, Any]:
    """Everything that `distill plan --json` prints.

    Args:
        recipe: to be planned.
        machines: that it is priced for; None for this one.
        within: seconds into which it is to fit; settings that do are then sought.

    Counts and bytes are exact, or nearly so where HDF5 adds its own; memory comes from a dry run
    without values; times are extrapolated from units of work that are timed here, in seconds, or
    that a calibration file holds. Networks that a run would compile are timed as they are, and a
    usual share of that is taken; where a calibration is written, they are compiled to be timed,
    which takes up to a minute more.

    How many images fit under a coding is only known from the data, and which coding a search takes
    only after it; both are then rough.

    Raises:
        RecipeError: for an unknown name or an invalid value, as `distill run` raises it.
        WorkError: if the data have to be read and cannot, the network cannot be matched, the
            calibration cannot be read, or no worker can be started.
    """
    machines = machines or Machines()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    check_names(recipe)
    other = read_calibration(machines.calibration) if machines.calibration is not None else None
    engine = _engine(machines, other)
    # A second of work that this process and its workers all need: before they are forked, once.
    import_module("torch._dynamo")
    engine.get_ready()
    device = choose_device("cpu" if other is not None else recipe.device)
    shape = data_shape(recipe.data)
    asked, recipe = recipe, _resolved(recipe, shape, device, other)
    parameters = {
        spec: parameter_count(meta_network(spec, shape)) for spec in network_specs(recipe)
    }
    matching = _matching(recipe, shape)
    effort = QUICK if machines.calibrate is None else THOROUGH
    units, clock = Units(recipe, shape, device), Clock(shape, device, other, effort)
    started = time.perf_counter()
    stages, process = {}, {}
    with closing(clock.companions):
        search = _search(Units(asked, shape, device), clock, engine)
        for stage, stage_time in stage_times(units, clock, engine):
            # A run has the same libraries loaded when it reaches this stage.
            stages[stage.name], process[stage.name] = stage_time, resident_bytes()
        fitting = None if within is None else _fitting(within, units, clock, engine, machines)
    here = Calibration(_device_name(device), torch.get_num_threads(), clock.measured)
    if machines.calibrate is not None:
        write_calibration(machines.calibrate, here)
    source = {
        "device": (other or here).device,
        "threads": (other or here).threads,
        "file": None if machines.calibration is None else str(machines.calibration),
        "seconds": round(time.perf_counter() - started, 3),
        "load": round(load, 1),
        "cores": core_count(),
    }
    return {
        "recipe": recipe.name,
        "data": {"source": recipe.data.source, **asdict(shape)},
        "parameters": parameters,
        "disk": _disk(units),
        "images": image_bytes(recipe, shape),
        "labels": label_bytes(recipe, shape),
        "budget": _budget(recipe),
        "memory": {
            **matching,
            "stages": _peaks(
                stage_memory(units, stages, process), on_cpu=source["device"] == "cpu"
            ),
        },
        "time": {"calibration": source, **_time(stages, search, machines)},
        **({} if fitting is None else {"within": fitting}),
    }


def _fitting(
    limit: float, units: Units, clock: Clock, engine: Local, machines: Machines
) -> dict[str, Any]:
    """The settings that fit into so many seconds, in plain values."""
    devices = machines.nodes * machines.gpus

    def price(recipe: Recipe) -> float | None:
        times = stage_times(units.with_recipe(recipe), clock, engine)
        seconds = [stage_time.wall_seconds(devices) for _, stage_time in times]
        known = [second for second in seconds if second is not None]
        return sum(known) if len(known) == len(seconds) else None

    found = find_settings(units.recipe, limit, price)
    return {
        "limit": limit,
        "seconds": found.seconds,
        "fits": found.fits,
        "alone": as_settings(units.recipe, found.alone),
        "together": as_settings(units.recipe, found.together),
        "together_seconds": found.together_seconds,
    }


def _search(units: Units, clock: Clock, engine: Local) -> StageTime | None:
    """The time of a search within a budget; None where the recipe asks for none."""
    table = units.recipe.match or units.recipe.select
    if table is None or not table.search:
        return None
    return time_of(partial(search_units, units, table), clock, engine)


def _peaks(stages: dict[str, StageMemory], *, on_cpu: bool) -> dict[str, Any]:
    """Bytes of each stage on the host, on the device, and at its peak."""
    return {
        name: {**asdict(used), "peak": used.device + (used.host if on_cpu else 0)}
        for name, used in stages.items()
    }


def _engine(machines: Machines, other: Calibration | None) -> Local:
    """What does independent jobs: here as a run has it, elsewhere by the cores of that machine."""
    if other is None or machines.workers != "auto":
        return Local(machines.workers)
    return Local(other.threads if other.device == "cpu" else None)


@dataclass(frozen=True)
class _Counted:
    """A `TrainingData` of a shape alone."""

    train: range
    channels: int
    size: tuple[int, int]
    classes: int


def _resolved(
    recipe: Recipe, shape: DataShape, device: torch.device, other: Calibration | None
) -> Recipe:
    """The recipe as a run resolves it, as far as that is known without the data."""
    recipe = narrow_members(recipe, shape.channels, shape.size, shape.classes)
    table = recipe.match or recipe.select
    filled = isinstance(table, SelectTable) and table.budget_bytes is not None
    if table is not None and (table.search or filled):
        found = planned_search(recipe, table, shape)
        recipe = recipe.model_copy(update={recipe.maker_name: found})
    on_cpu = device.type == "cpu" and (other is None or other.device == "cpu")
    if not on_cpu:
        return without_compilation(recipe)
    counted = _Counted(range(shape.train), shape.channels, shape.size, shape.classes)
    return resolve_compile(recipe, counted, device, {}, lambda line: None)


def _matching(recipe: Recipe, shape: DataShape) -> dict[str, Any]:
    """Peak bytes of one matching gradient by each method; empty where there is none."""
    if recipe.match is None or not recipe.match.matches_parameters:
        return {}
    try:
        return {"gradient": recipe.match.gradient, "matching": matching_peaks(recipe, shape)}
    except ValueError as error:
        raise WorkError(f"match: {error}") from None


def _budget(recipe: Recipe) -> dict[str, Any] | None:
    """The bytes that the set may take, and how its images are kept in them; None without one."""
    if recipe.budget_bytes is None:
        return None
    table = recipe.match or recipe.table("select")
    return {
        "bytes": recipe.budget_bytes,
        "images": table.images,
        "ipc": table.ipc,
        "factor": table.formed,
        "searched": list(table.search),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _disk(units: Units) -> dict[str, Any]:
    """Bytes of each artefact of the run."""
    recipe, shape = units.recipe, units.shape
    sizes: dict[str, Any] = {}
    if recipe.experts is not None:
        sizes["experts"] = expert_buffer(recipe, shape)
    if recipe.committee is not None:
        sizes["committee"] = {"bytes": committee_file(recipe, shape)}
    sizes["set"] = {"bytes": set_file(recipe, shape)}
    if recipe.projector is not None:
        sizes["projector"] = _projector(units)
    return sizes


def _projector(units: Units) -> dict[str, Any]:
    """Bytes of a projector of this recipe, measured by saving an unfitted one."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            projectors.save(units.projector, Path(folder) / "projector")
            size = projectors.projector_bytes(Path(folder) / "projector")
    except projectors.ProjectorError as error:
        return {"bytes": None, "external": None, "reason": f"not known: {error}"}
    return {"bytes": size.shipped, "external": size.external}


def _time(
    stages: dict[str, StageTime], search: StageTime | None, machines: Machines
) -> dict[str, Any]:
    devices = machines.nodes * machines.gpus
    priced = {name: _stage(stage, devices) for name, stage in stages.items()}
    # One device searches; all wait for what it finds.
    before = {} if search is None else {"search": _stage(search, 1)}
    everything = [*before.values(), *priced.values()]
    known = all(stage["seconds"] is not None for stage in everything)
    totals = {
        key: sum(stage[key] for stage in everything) if known else None
        for key in ("seconds", "wall_seconds")
    }
    count = {"nodes": machines.nodes, "gpus": machines.gpus}
    return {**count, **totals, **before, "stages": priced}


def _stage(stage: StageTime, devices: int) -> dict[str, Any]:
    """Seconds of a stage and the parts that they sum; equal units are merged."""
    totals: Counter[Timed] = Counter()
    for part in stage.parts:
        totals[part.unit] += part.times
    parts = [{"times": times, **asdict(unit)} for unit, times in totals.items()]
    priced: dict[str, Any] = {
        "seconds": stage.seconds,
        "wall_seconds": stage.wall_seconds(devices),
        "tasks": sum(task.count for task in stage.tasks),
        "workers": stage.workers,
        "basis": weakest([unit.basis for unit in totals]),
        "parts": parts,
    }
    return {**priced, "reason": stage.reason} if stage.reason else priced
