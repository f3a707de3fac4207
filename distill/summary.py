"""What a run found, and what it cost: summary.json."""

from __future__ import annotations

from typing import Any

from distill.store.files import write_json
from distill.store.run import Run

FILE = "summary.json"


def write_summary(run: Run, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Write summary.json: the evaluation with each stage's seconds and peak memory."""
    stages = {
        name: {field: entry[field] for field in ("seconds", "peak_memory_bytes")}
        for name, entry in run.manifest["stages"].items()
    }
    summary = {**evaluation, "stages": stages}
    write_json(run.path / FILE, summary)
    return summary
