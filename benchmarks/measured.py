"""What result files of every kind say of themselves: accuracies, seconds, bytes and machine."""

from __future__ import annotations

from typing import Any

from distill.evaluation.jobs import statistics_of

SOURCES = {
    "hard": "hard labels",
    "learned": "learned soft labels",
    "votes": "committee votes",
    "projector": "projector",
}


def summary_of(part: dict[str, Any]) -> dict[str, Any]:
    """The summary of a result or of a variant; of several seeds, one of all their students.

    Seconds of stages are then sums, and bytes those of the first seed.
    """
    if "summaries" not in part:
        found: dict[str, Any] = part["summary"]
        return found
    each = list(part["summaries"].values())
    controls = {
        name: _pooled([summary["controls"][name] for summary in each])
        for name in ("random", "coded", "herded")
        if name in each[0]["controls"]
    }
    seconds = {
        stage: {"seconds": sum(summary["stages"][stage]["seconds"] for summary in each)}
        for stage in each[0]["stages"]
    }
    students = _pooled([summary["students"] for summary in each])
    return {**each[0], "students": students, "controls": controls, "stages": seconds}


def _pooled(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracies by student and label source, over the students of all groups."""
    return {
        student: {
            source: statistics_of(
                [run for group in groups for run in group[student][source]["runs"]]
            )
            for source in sources
        }
        for student, sources in groups[0].items()
    }


def seconds_of(result: dict[str, Any]) -> float | None:
    """How long a result took, as far as its file says; otherwise None."""
    if "made_in_seconds" in result:
        return float(result["made_in_seconds"])
    if "plans" in result:
        return float(sum(plan["taken"] for plan in result["plans"].values()))
    runs = [summary_of(variant) for variant in result.get("variants", {}).values()]
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
