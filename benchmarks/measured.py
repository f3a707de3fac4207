"""What result files of every kind say of themselves: seconds, bytes and machine."""

from __future__ import annotations

from typing import Any


def seconds_of(result: dict[str, Any]) -> float | None:
    """How long a result took, as far as its file says; otherwise None."""
    if "made_in_seconds" in result:
        return float(result["made_in_seconds"])
    if "plans" in result:
        return float(sum(plan["taken"] for plan in result["plans"].values()))
    runs = [variant["summary"] for variant in result.get("variants", {}).values()]
    runs += [part for part in (result.get("summary"), result) if part and "stages" in part]
    # Stages that variants share have the same seconds in each.
    stages = {(name, stage["seconds"]) for run in runs for name, stage in run["stages"].items()}
    return float(sum(seconds for _, seconds in stages)) if stages else None


def machine_of(result: dict[str, Any]) -> str:
    """The machine that a result was made on, in short."""
    parts = [part["machine"] for part in result.get("made", {"": result}).values() if part]
    machine = parts[0] if parts else {}
    return str(machine.get("gpu") or f"{machine.get('cores', '?')} x {machine.get('cpu', '?')}")


def source_bytes(counted: dict[str, Any], source: str) -> int:
    """Everything that a label source needs; external bytes are listed apart.

    Older files have no totals; labels are counted there as the file stores them.
    """
    if source in counted.get("totals", {}):
        return int(counted["totals"][source])
    return int(counted["images"] + counted.get("preprocess", 0) + label_bytes(counted, source))


def label_bytes(counted: dict[str, Any], source: str) -> int:
    """Bytes of the labels of a source alone."""
    return int(counted["projector"] if source == "projector" else counted["sources"][source])
