"""`distill plan RECIPE`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from distill.commands.options import as_json, debug, device


@click.command()
@click.argument("recipe")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Override a key of the recipe; may be given several times.",
)
@device
@as_json
@debug
def plan(
    recipe: str, overrides: tuple[str, ...], device: str | None, as_json: bool, debug: bool
) -> None:
    """Say what RECIPE would cost: parameters, disk, memory and time, before anything is run.

    Times are extrapolated from a calibration on this machine, which takes up to half a minute.

    \b
    Example:
      distill plan digits --set match.ipc=10
    """
    from distill.plan import make_plan
    from distill.recipe import load_recipe

    resolved = load_recipe(recipe, list(overrides))
    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    found = make_plan(resolved)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    data = found["data"]
    sides = "x".join(str(extent) for extent in (data["channels"], *data["size"]))
    yield (
        f"{found['recipe']}: {data['source']}, {data['classes']} classes of {sides} images; "
        f"{data['train']:,} to train on, {data['validation']:,} held out, {data['test']:,} to test"
    )
    yield "\nparameters"
    for spec, count in found["parameters"].items():
        yield f"  {count:>12,}  {spec}"
    yield "\ndisk"
    for name, entry in found["disk"].items():
        yield f"  {_bytes(entry['bytes']):>12}  {name}{_remark(entry)}"
    yield "\nwhat a receiver needs of the set, besides the projector"
    for name, size in (*found["images"].items(), *found["labels"].items()):
        if size:
            yield f"  {_bytes(size):>12}  {name}"
    yield "\nmemory of matching, tensors alone (the process, and what kernels use, come on top)"
    for name, size in found["memory"]["matching"].items():
        chosen = "  (this recipe's)" if name == found["memory"]["gradient"] else ""
        yield f"  {_bytes(size):>12}  {name}{chosen}"
    yield from _time_lines(found["time"])


def _remark(entry: dict[str, Any]) -> str:
    if "share_of_mtt" in entry:
        return (
            f": {entry['experts']} experts of {entry['snapshots']} snapshots in "
            f"{entry['storage']}, {entry['share_of_mtt']:.1%} of MTT's 100 of 51 in float32"
        )
    if entry.get("external"):
        return f", and {_bytes(entry['external'])} from elsewhere"
    return f" {entry['reason']}" if "reason" in entry else ""


def _time_lines(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"\ntime on this machine ({found['device']}), extrapolated from "
        f"{found['calibration_seconds']:.0f} s of calibration"
    )
    for name, stage in found["stages"].items():
        yield f"  {_seconds(stage['seconds']):>12}  {name} {stage.get('reason', '')}".rstrip()
        for part in stage["parts"]:
            scaled = part["measured_batch"] != part["batch"]
            where = f" at batch {part['measured_batch']}, scaled" if scaled else ""
            yield (
                f"{'':16}{part['times']:,} x {1000 * part['seconds']:.3g} ms, {part['what']}, "
                f"batch {part['batch']} (measured {part['units']}{where})"
            )
    yield f"  {_seconds(found['seconds']):>12}  in all"


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
