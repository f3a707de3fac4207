"""What a recipe would cost: parameters, disk, memory and time, without its data where possible."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import projectors
from distill.build import choose_device
from distill.checks import check_names
from distill.errors import WorkError
from distill.plan.clock import Clock, Timed
from distill.plan.memory import matching_peaks
from distill.plan.shapes import DataShape, shape_of
from distill.plan.sizes import (
    committee_file,
    expert_buffer,
    image_bytes,
    label_bytes,
    meta_network,
    network_specs,
    parameter_count,
    set_file,
)
from distill.plan.times import StageTime, stage_times
from distill.plan.units import Units
from distill.tables import Recipe

__all__ = ["make_plan"]


def make_plan(recipe: Recipe) -> dict[str, Any]:
    """Everything that `distill plan --json` prints.

    Counts and bytes are exact, or nearly so where HDF5 adds its own; memory comes from a dry run
    without values; times are extrapolated from units of work that are timed here, in less than
    half a minute.

    Raises:
        RecipeError: for a name or value that cannot be, as `distill run` would say.
        WorkError: if the data have to be read and cannot, or the network cannot be matched.
    """
    check_names(recipe)
    if recipe.match is None:
        raise WorkError(
            "only recipes that match trajectories can be planned; name one with [match]"
        )
    device = choose_device(recipe.device)
    shape = shape_of(recipe.data)
    parameters = {
        spec: parameter_count(meta_network(spec, shape)) for spec in network_specs(recipe)
    }
    try:
        peaks = matching_peaks(recipe, shape)
    except ValueError as error:
        raise WorkError(f"match: {error}") from None
    clock = Clock(shape, device)
    return {
        "recipe": recipe.name,
        "data": {"source": recipe.data.source, **asdict(shape)},
        "parameters": parameters,
        "disk": _disk(recipe, shape, clock),
        "images": image_bytes(recipe, shape),
        "labels": label_bytes(recipe, shape),
        "memory": {"gradient": recipe.matching()[1].gradient, "matching": peaks},
        "time": _time(recipe, clock),
    }


def _disk(recipe: Recipe, shape: DataShape, clock: Clock) -> dict[str, Any]:
    """Bytes of each artefact of the run."""
    found: dict[str, Any] = {"experts": expert_buffer(recipe, shape)}
    if recipe.committee is not None:
        found["committee"] = {"bytes": committee_file(recipe, shape)}
    found["set"] = {"bytes": set_file(recipe, shape)}
    if recipe.projector is not None:
        found["projector"] = _projector(recipe, clock)
    return found


def _projector(recipe: Recipe, clock: Clock) -> dict[str, Any]:
    """Bytes of a projector of this recipe, found by saving an unfitted one."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            projectors.save(Units(recipe, clock).projector, Path(folder) / "projector")
            size = projectors.projector_bytes(Path(folder) / "projector")
    except projectors.ProjectorError as error:
        return {"bytes": None, "external": None, "reason": f"not known: {error}"}
    return {"bytes": size.shipped, "external": size.external}


def _time(recipe: Recipe, clock: Clock) -> dict[str, Any]:
    started = time.perf_counter()
    stages = stage_times(recipe, clock)
    known = [stage.seconds for stage in stages.values()]
    return {
        "device": str(clock.device),
        "threads": torch.get_num_threads(),
        "calibration_seconds": round(time.perf_counter() - started, 3),
        "seconds": None if None in known else sum(value or 0.0 for value in known),
        "stages": {name: _stage(stage) for name, stage in stages.items()},
    }


def _stage(stage: StageTime) -> dict[str, Any]:
    """Seconds of a stage, and what they are the sum of: equal units stand together."""
    totals: Counter[Timed] = Counter()
    for part in stage.parts:
        totals[part.unit] += part.times
    parts = [{"times": times, **asdict(unit)} for unit, times in totals.items()]
    found: dict[str, Any] = {"seconds": stage.seconds, "parts": parts}
    return {**found, "reason": stage.reason} if stage.reason else found
