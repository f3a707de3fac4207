"""Record a finished run, or a sweep with its plot, as benchmarks/results/NAME.json.

    python benchmarks/record.py runs/fashion-mnist-ipc1 fashion-mnist-ipc1 \
        --command "distill run fashion-mnist-ipc1 --out runs/fashion-mnist-ipc1"

    python benchmarks/record.py runs/curve fashion-mnist-labels --command "distill sweep ..."

The file holds the run's summary (or the sweep's points) with the command, the commit, the seed,
the versions, the machine's class and the date. The tables of README.md and docs/results.md are made
from such files by benchmarks/tables.py.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from code_state import RESULTS, commit
from torchvision.utils import save_image

from distill.run.folder import versions
from distill.sets.set_file import read_set


def machine_class() -> dict[str, Any]:
    """What kind of machine this is, without its name."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    machine = {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(pages / 2**30)}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def this_call() -> str:
    """The command that started this script, as a shell reads it."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def provenance(command: str) -> dict[str, Any]:
    """What every result file begins with: command, commit, date and machine class."""
    return {
        "command": command,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine_class(),
    }


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result file, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


def run_result(run: Path) -> dict[str, Any]:
    """What is recorded of a run."""
    manifest = json.loads((run / "manifest.json").read_text())
    return {
        "seed": manifest["seed"],
        "versions": manifest["versions"],
        "recipe": manifest["recipe"],
        "outputs": {name: stage["outputs"] for name, stage in manifest["stages"].items()},
        "summary": json.loads((run / "summary.json").read_text()),
    }


def picture(run: Path, path: Path) -> None:
    """Draw the first image of each class of a run's set, as stored, four times as large."""
    content = read_set(run / "set.h5")
    per_class = len(content.images) // len(content.hard.unique())
    pixels = content.preprocess.inverse(content.images[::per_class]).clamp(0, 1)
    large = pixels.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    save_image(large, path, nrow=len(large), padding=4, pad_value=1.0)


def sweep_result(sweep: Path, plot: Path) -> dict[str, Any]:
    """What is recorded of a sweep; its plot is copied."""
    table = json.loads((sweep / "sweep.json").read_text())
    shutil.copy2(sweep / "curve.svg", plot)
    return {"versions": versions(), "sweep": table}


def main() -> None:
    """Read a run or a sweep and write its result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True, help="the command that made the run")
    parser.add_argument("--picture", action="store_true", help="draw the set as NAME.png too")
    options = parser.parse_args()
    if options.picture:
        picture(options.run, RESULTS / f"{options.name}.png")
    is_sweep = (options.run / "sweep.json").is_file()
    plot = RESULTS / f"{options.name}.svg"
    result = {
        **provenance(options.command),
        **(sweep_result(options.run, plot) if is_sweep else run_result(options.run)),
    }
    write_result(RESULTS / f"{options.name}.json", result)


if __name__ == "__main__":
    main()
