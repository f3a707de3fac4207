"""What each stage of a recipe costs, and how near it comes to what the machine can compute.

    python benchmarks/pipeline.py digits
    python benchmarks/pipeline.py fashion-mnist-ipc1 --set experts.count=1 --set match.iterations=20
    python benchmarks/pipeline.py fashion-mnist-ipc1 --device cuda

Each stage runs twice. First in a process of its own, which gives its seconds and its peak memory;
then in this process under a counter of multiplications and additions (convolutions and matrix
products, forwards and backwards; everything else counts as nothing). The last column is their
quotient beside the rate of one large float32 matrix product on as many threads, or on the GPU,
measured here before and after. Writes benchmarks/results/pipeline-RECIPE.json, or with a GPU
pipeline-RECIPE-cuda.json. Run it on a machine that does nothing else: the counts are exact, the
seconds are the machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from code_state import RESULTS
from record import provenance, this_call, write_result
from torch.utils.flop_counter import FlopCounterMode

from distill.recipes.compiling import without_compilation
from distill.recipes.loading import load_recipe
from distill.recipes.schema import Recipe
from distill.run.folder import versions
from distill.stages.loading import planned
from distill.stages.run_recipe import run_recipe
from synth.matching import recorded_steps as recording
from synth.training import loop as training


def product_rate(device: str, repeats: int = 12) -> float:
    """Operations a second of a square float32 matrix product, the median."""
    size = 8192 if device == "cuda" else 1536
    left, right = torch.randn(2, size, size, device=device)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        # Reading a value waits for the device.
        float(torch.mm(left, right)[0, 0])
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds[1:])


def timed(words: list[str], stage: str, folder: Path, threads: int) -> dict[str, Any]:
    """Run a stage in a process of its own; returns its entry in the run's manifest."""
    subprocess.run(
        [sys.executable, "-m", "distill", "run", *words, "--out", str(folder), "--stage", stage,
         "--quiet"],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    entry: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["stages"][stage]
    return entry


def counted(recipe: Recipe, stage: str, folder: Path) -> int:
    """Multiplications and additions of a stage."""
    with ExitStack() as stack:
        # Steps that a CUDA graph replays would not be counted.
        for module in (recording, training):
            stack.enter_context(patch.object(module, "_EAGER_RUNS", sys.maxsize))
        counter = stack.enter_context(FlopCounterMode(display=False))
        run_recipe(without_compilation(recipe), folder, [stage], quiet=True)
    return counter.get_total_flops()


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """A row for every stage, and the machine's rate."""
    changes = [*options.set, f"device={options.device}"]
    words = [options.recipe, *(word for change in changes for word in ("--set", change))]
    recipe = load_recipe(options.recipe, changes)
    torch.set_num_threads(options.threads)
    rates, rows = [product_rate(options.device)], {}
    for stage in (stage.name for stage in planned(recipe)):
        entry = timed(words, stage, scratch / "timed", options.threads)
        operations = counted(recipe, stage, scratch / "counted")
        rows[stage] = {
            "seconds": entry["seconds"],
            "peak_memory_bytes": entry["peak_memory_bytes"],
            "operations": operations,
        }
        rates.append(product_rate(options.device))
        print(f"{stage}: {entry['seconds']:.1f} s", file=sys.stderr, flush=True)
    rate = statistics.median(rates)
    for row in rows.values():
        row["share_of_peak"] = round(row["operations"] / row["seconds"] / rate, 3)
    return {"product_operations_per_second": rate, "threads": options.threads, "stages": rows}


def main() -> None:
    """Measure, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(options, Path(scratch))
    result = {
        **provenance(this_call()),
        "seed": load_recipe(options.recipe, options.set).seed,
        "versions": versions(),
        **measured,
    }
    where = "-cuda" if options.device == "cuda" else ""
    write_result(RESULTS / f"pipeline-{Path(options.recipe).stem}{where}.json", result)


if __name__ == "__main__":
    main()
