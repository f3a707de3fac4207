"""`distill plan RECIPE`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from distill.commands.options import (
    allow_code,
    as_json,
    debug,
    device,
    read_recipe,
    recipe_argument,
    workers,
)
from distill.run.allocator import collect_rarely
from distill.terminal import echo, echo_json, echo_lines


class Duration(click.ParamType):
    """A time such as 90s, 15m, 2h or 1d, in seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds, above 0."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value), re.ASCII)
        if match is None or not float(match.group(1)):
            self.fail(f"{value!r} is no time; write it as 90s, 15m, 2h or 1d", param, ctx)
        return float(match.group(1)) * _UNITS[match.group(2)]


# Load by core from which other work disturbs the times of this one.
_BUSY = 0.5

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.command()
@recipe_argument
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Override a key of the recipe; may be given several times.",
)
@click.option(
    "--bytes",
    "budget",
    metavar="N",
    type=click.IntRange(1),
    help="The budget of the set in bytes, as `distill run --bytes` has it.",
)
@workers
@click.option("--nodes", type=click.IntRange(1), default=1, help="Machines to spread the work on.")
@click.option("--gpus", type=click.IntRange(1), default=1, help="Devices of each machine.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Price by the times of this file instead of measuring here.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    help="Measure thoroughly, compiling what a run compiles, and write the times to this file, for "
    "plans here and on other machines.",
)
@click.option(
    "--within",
    metavar="TIME",
    type=Duration(),
    help="Also say which settings fit into this time, such as 15m or 2h.",
)
@allow_code
@device
@as_json
@debug
def plan(
    recipe: str,
    overrides: tuple[str, ...],
    budget: int | None,
    within: float | None,
    device: str | None,
    as_json: bool,
    debug: bool,
    **machines: Any,
) -> None:
    """Say what RECIPE would cost: parameters, disk, memory and time, before anything is run.

    Times are extrapolated from a calibration on this machine, which takes seconds, or from a file
    that --calibrate wrote, here or on another machine. The data of the papers need not be there.

    \b
    Example:
      distill plan digits --set match.ipc=10
      distill plan digits --bytes 2000 --workers 1
      distill plan fashion-mnist-ipc10 --within 15m
      distill plan imagenet-1k-ipc50 --calibrate h100.json          # where the GPU is
      distill plan imagenet-1k-ipc50 --calibration h100.json --nodes 8 --gpus 8
    """
    from distill.errors import RecipeError
    from distill.recipes.stages import STAGE_ENTRIES
    from distill.recipes.weak_towers import tower_note

    if machines["calibration"] is not None and machines["calibrate"] is not None:
        raise RecipeError("--calibrate measures here and --calibration does not; give one of them")
    resolved = read_recipe(recipe, overrides, budget=budget)
    with collect_rarely():
        # Not above: they import torch.
        from distill.plan import Machines, make_plan
        from distill.recipes.build import choose_device
        from distill.recipes.checks import missing_packages
        from distill.recipes.slow_precision import capabilities, precision_note

        if device is not None:
            resolved = resolved.model_copy(update={"device": device})
        for sentence in missing_packages(resolved, STAGE_ENTRIES):
            echo(f"note: {sentence}", err=True)
        estimate = make_plan(resolved, Machines(**machines), within=within)
        notes = [tower_note(resolved, estimate["data"]["channels"])]
        if machines["calibration"] is None:
            here = choose_device(resolved.device)
            notes.append(precision_note(resolved, here, capabilities()))
    for note in filter(None, notes):
        echo(f"note: {note}", err=True)
    if as_json:
        echo_json(estimate)
    else:
        echo_lines(_lines(estimate))


def _lines(estimate: dict[str, Any]) -> Iterator[str]:
    data = estimate["data"]
    sides = "x".join(str(extent) for extent in (data["channels"], *data["size"]))
    yield (
        f"{estimate['recipe']}: {data['source']}, {data['classes']} classes of {sides} images; "
        f"{data['train']:,} to train on, {data['validation']:,} held out, {data['test']:,} to test"
    )
    yield ""
    yield "parameters"
    for spec, count in estimate["parameters"].items():
        yield f"  {count:>12,}  {spec}"
    yield ""
    yield "disk"
    for name, entry in estimate["disk"].items():
        yield f"  {_bytes(entry['bytes']):>12}  {name}{_remark(entry)}"
    yield ""
    yield "what a receiver needs of the set, besides the projector"
    for name, size in (*estimate["images"].items(), *estimate["labels"].items()):
        if size:
            yield f"  {_bytes(size):>12}  {name}"
    if estimate["budget"] is not None:
        yield from _budget_lines(estimate["budget"])
    if "matching" in estimate["memory"]:
        yield ""
        yield "memory of matching, tensors alone (the process, and what kernels use, come on top)"
        for name, size in estimate["memory"]["matching"].items():
            chosen = "  (this recipe's)" if name == estimate["memory"]["gradient"] else ""
            yield f"  {_bytes(size):>12}  {name}{chosen}"
    yield ""
    yield "memory of each stage, data and process included"
    yield f"  {'peak':>12}  {'on the host':>12}  {'on the device':>14}"
    for name, stage in estimate["memory"]["stages"].items():
        sizes = f"{_bytes(stage['host']):>12}  {_bytes(stage['device']):>14}"
        yield f"  {_bytes(stage['peak']):>12}  {sizes}  {name}"
    yield from _time_lines(estimate["time"])
    if "within" in estimate:
        yield from _within_lines(estimate["within"])


def _within_lines(within: dict[str, Any]) -> Iterator[str]:
    limit = _seconds(within["limit"])
    if within["seconds"] is None:
        yield ""
        yield f"what fits into {limit} is not known, as some stage has no time"
        return
    if within["fits"]:
        yield ""
        yield f"fits into {limit}"
        return
    yield ""
    yield f"to fit into {limit}, in place of {_seconds(within['seconds'])}"
    if within["together"]:
        words = " ".join(f"--set {setting}" for setting in within["together"])
        yield f"  all in proportion, {_seconds(within['together_seconds'])}: {words}"
    if within["alone"]:
        yield "  or one of these alone:"
        yield from (f"    --set {setting}" for setting in within["alone"])
    if not within["together"] and not within["alone"]:
        yield "  no single setting is enough, nor the least of all; choose another recipe"


def _budget_lines(budget: dict[str, Any]) -> Iterator[str]:
    tiles = f", factor {budget['factor']}" if budget["factor"] > 1 else ""
    yield (
        f"  {budget['bytes']:,} bytes is the budget of everything: {budget['ipc']} images a class "
        f"kept as {budget['images']}{tiles}"
    )
    if budget["searched"]:
        yield (
            f"  {', '.join(budget['searched'])} here as a search in the run may choose; all that "
            "follows from it is rough"
        )


def _remark(entry: dict[str, Any]) -> str:
    if "share_of_mtt" in entry:
        return (
            f": {entry['experts']} experts of {entry['snapshots']} snapshots in "
            f"{entry['storage']}, {entry['share_of_mtt']:.1%} of MTT's 100 of 51 in float32"
        )
    if entry.get("external"):
        return f", and {_bytes(entry['external'])} from elsewhere"
    return f" {entry['reason']}" if "reason" in entry else ""


def _time_lines(times: dict[str, Any]) -> Iterator[str]:
    source, devices = times["calibration"], times["nodes"] * times["gpus"]
    where = source["file"] or f"{source['seconds']:.0f} s of calibration here"
    yield ""
    yield f"time, extrapolated from {where} ({source['device']})"
    if source["file"] is None and source["load"] > _BUSY * source["cores"]:
        yield (
            f"  other work was under way: the load was {source['load']} before the calibration, on "
            f"{source['cores']} cores; times are shorter where they are free"
        )
    many = f"{f'{devices} devices':>12}  " if devices > 1 else ""
    yield f"  {'one device':>12}  {many}{'units known':<14} stage"
    searched = {"search": times["search"]} if "search" in times else {}
    for name, stage in (*searched.items(), *times["stages"].items()):
        shared = f", {stage['workers']} workers" if (stage["workers"] or 1) > 1 else ""
        reason = f" ({stage['reason']})" if "reason" in stage else ""
        yield f"  {_both(stage, devices)}{stage['basis']:<14} {name}{shared}{reason}"
        for part in stage["parts"]:
            yield f"{'':18}{_part(part)}"
    yield f"  {_both(times, devices)}in all"
    if devices > 1:
        yield (
            f"  {devices} devices are extrapolated: tasks that do not wait for each other are "
            "spread evenly, and sending data about is not counted"
        )


def _both(times: dict[str, Any], devices: int) -> str:
    wall = f"{_seconds(times['wall_seconds']):>12}  " if devices > 1 else ""
    return f"{_seconds(times['seconds']):>12}  {wall}"


def _part(part: dict[str, Any]) -> str:
    known = {
        "measured": f"measured {part['units']}",
        "scaled": f"measured {part['units']} {_elsewhere(part)}, scaled",
        "by operations": f"not measured: {part['flops']:.2g} operations at the rate of others",
    }
    compiling = f", {part['compiling']:.0f} s to compile" if part["compiling"] else ""
    return (
        f"{part['times']:,} x {1000 * part['seconds']:.3g} ms, {part['what']}, batch "
        f"{part['batch']} ({known[part['basis']]}{compiling})"
    )


def _elsewhere(part: dict[str, Any]) -> str:
    """What was measured in place of a part."""
    same = part["measured_batch"] == part["batch"]
    return "without compiling" if same else f"at batch {part['measured_batch']}"


def _bytes(count: int | None) -> str:
    if count is None:
        return "unknown"
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for length, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
