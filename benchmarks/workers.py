"""Speed-up of an evaluation by several workers over one student after another.

    distill run digits --out runs/digits
    python benchmarks/workers.py runs/digits

Runs `distill evaluate` on a set by 1 and by N workers, each in a process of its own and after one
unmeasured start, checks that both give the same numbers, and writes
benchmarks/results/workers.json. Every student computes on one thread, so workers share nothing but
the memory bus. Five seeds give five students on the set, five on random real images and five on
the whole data set. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from code_state import RESULTS
from record import provenance, this_call, write_result


def evaluate(run: Path, workers: int, options: argparse.Namespace) -> tuple[float, Any]:
    """Seconds of one evaluation, and what it printed."""
    words = [
        sys.executable, "-m", "distill", "evaluate", str(run), "--students", options.student,
        "--seeds", str(options.seeds), "--labels", options.labels, "--epochs", str(options.epochs),
        "--whole-epochs", str(options.whole_epochs), "--workers", str(workers), "--device", "cpu",
        "--quiet", "--json",
    ]  # fmt: skip
    started = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return time.monotonic() - started, json.loads(done.stdout)


def main() -> None:
    """Measure, check and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, or a set.h5")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--student", default="convnet3:width=32")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", default="hard")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--whole-epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    # Warm the file cache, so that no measurement pays for the first start.
    subprocess.run([sys.executable, "-m", "distill", "show", str(options.run)], check=True,
                   capture_output=True)  # fmt: skip
    seconds: dict[int, list[float]] = {1: [], options.workers: []}
    printed = []
    for _ in range(options.repeats):
        for workers, durations in seconds.items():
            took, result = evaluate(options.run, workers, options)
            durations.append(round(took, 2))
            printed.append(result)
    if any(result != printed[0] for result in printed):
        raise SystemExit("error: the numbers depend on the number of workers")
    alone, together = min(seconds[1]), min(seconds[options.workers])
    result = {
        **provenance(this_call()),
        "students": 3 * options.seeds,
        "seconds": {str(workers): durations for workers, durations in seconds.items()},
        "ratio": round(together / alone, 3),
    }
    write_result(RESULTS / "workers.json", result)
    print(f"1 worker {alone:.1f} s, {options.workers} workers {together:.1f} s: "
          f"{together / alone:.2f} of the time, the same numbers")  # fmt: skip


if __name__ == "__main__":
    main()
