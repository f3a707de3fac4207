"""What `distill plan` says that a recipe takes, beside what it takes.

    python benchmarks/plan.py digits digits-2kb

Each recipe is planned and then run, by the commands that a user types. Writes
benchmarks/results/plan.json: seconds of each stage, planned and taken. Run it on a machine that
does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from code_state import RESULTS
from record import provenance, write_result


def compare(recipe: str) -> dict[str, Any]:
    """Seconds of a recipe's stages, planned and taken."""
    command = [sys.executable, "-m", "distill"]
    words = [*command, "plan", recipe, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    planned = json.loads(done.stdout)["time"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        words = [*command, "run", recipe, "--out", str(folder), "--quiet"]
        subprocess.run(words, capture_output=True, check=True)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    stages = {
        name: {
            "planned": round(planned["stages"][name]["wall_seconds"], 1),
            "taken": round(stage["seconds"], 1),
        }
        for name, stage in manifest["stages"].items()
    }
    taken = sum(stage["taken"] for stage in stages.values())
    return {
        "planned": round(planned["wall_seconds"], 1),
        "taken": round(taken, 1),
        "ratio": round(planned["wall_seconds"] / taken, 2),
        "stages": stages,
    }


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+")
    recipes = parser.parse_args().recipes
    command = "python benchmarks/plan.py " + " ".join(recipes)
    result = {**provenance(command), "plans": {name: compare(name) for name in recipes}}
    write_result(RESULTS / "plan.json", result)


if __name__ == "__main__":
    main()
