"""Tables of what things cost, from the result files of benchmarks; see `tables.py`."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from typing import Any

from markdown_table import table

# Columns of times: the part of the file, and what stands in their heads.
TIMES = {"seconds_one_thread": "one thread", "seconds": "time"}
ANCHORS = ("mtt-style", "unrolled")


def gradient_table(result: dict[str, Any], only: Collection[str] = ()) -> list[str]:
    """Time against plain unrolled differentiation, peak memory and error, as Markdown.

    Times are multiples of those of the first of ANCHORS that was measured.

    Args:
        result: the file.
        only: numbers of inner steps that are shown; all if there are none.
    """

    def shown(part: str) -> dict[str, dict[str, Any]]:
        return {n: row for n, row in result.get(part, {}).items() if not only or n in only}

    peaks, errors = shown("peak_bytes"), shown("errors")
    heads, columns = [], []
    rows: dict[str, None] = {}
    for part, words in TIMES.items():
        for n, times in shown(part).items():
            anchor = next((times[name] for name in ANCHORS if name in times), None)
            if anchor is not None and n != "1":
                heads.append(f"{words}, N = {n}")
                columns.append({name: f"{taken / anchor:.2f}x" for name, taken in times.items()})
                rows |= dict.fromkeys(times)
    for n, measured in peaks.items():
        heads.append(f"MiB, N = {n}")
        columns.append({name: f"{size / 2**20:,.0f}" for name, size in measured.items()})
    for n, measured in errors.items():
        heads.append(f"error, N = {n}")
        columns.append({name: f"{max(parts.values()):.0e}" for name, parts in measured.items()})
    cells = ([name, *(column.get(name, "–") for column in columns)] for name in rows)
    made = result["made"].get("seconds", result["made"].get("seconds_one_thread"))
    problem = made["problem"]
    words = f"{made['threads']} thread(s)"
    if peaks:
        gpu = "gpu" in made["machine"]
        words += f"; MiB: {'what the allocator reserves' if gpu else 'growth of the process'}"
    images = "x".join(str(side) for side in problem["images"][1:])
    return [
        *table(["gradient", *heads], cells),
        "",
        f"ConvNet of width {problem['width']}, batch {problem['batch']}, {images} images, {words}.",
    ]


def pipeline_table(result: dict[str, Any]) -> list[str]:
    """What each stage of a recipe costs, as Markdown."""
    rows = [
        [
            name,
            f"{stage['seconds']:.1f}",
            f"{stage['peak_memory_bytes'] / 2**20:,.0f}",
            f"{stage['operations']:.1e}",
            f"{100 * stage['share_of_peak']:.0f} %",
        ]
        for name, stage in result["stages"].items()
    ]
    return [
        *table(["stage", "seconds", "MiB", "operations", "of the peak"], rows),
        "",
        f"The peak is {result['product_operations_per_second'] / 1e9:.0f} billion operations a "
        f"second on {result['threads']} thread(s).",
    ]


def workers_table(result: dict[str, Any]) -> list[str]:
    """Students one after another and side by side, as Markdown."""
    rows = ([count, f"{min(durations):.1f}"] for count, durations in result["seconds"].items())
    times = len(result["seconds"]["1"])
    measured = "each measured once" if times == 1 else f"the shortest of {times} times"
    legend = f"{result['students']} students; {measured}, start included."
    return [*table(["workers", "seconds"], rows, words=0), "", legend]


def epochs_table(result: dict[str, Any]) -> list[str]:
    """Seconds of an epoch at an older commit and at this one, as Markdown."""
    rows = []
    for name, seconds in result["seconds"].items():
        words = f"commit {result['old']}" if name == "old" else name
        first = result["first_epoch_seconds"][name]
        rows.append([words, f"{statistics.median(seconds):.1f}", f"{first:.1f}"])
    return [
        *table(["training", "seconds an epoch", "first epoch"], rows),
        "",
        f"{result['images']:,} images, batches of {result['batch']}, {result['threads']} threads, "
        f"in turn; median of {len(result['seconds']['old'])}; the median of the ratios of the last "
        f"to the first row is {result['median_ratio']:.2f}.",
    ]


def precision_table(result: dict[str, Any]) -> list[str]:
    """Test accuracies in float32 and in bfloat16, by kind of network, as Markdown."""
    rows = []
    for kind, row in result["accuracies"].items():
        cells = [
            f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f}"
            for values in row.values()
        ]
        difference = result["differences"][kind]
        mean, error = 100 * difference["mean"], 100 * difference["standard_error"]
        rows.append([kind, *cells, f"{mean:+.2f} ± {error:.2f}"])
    return [
        *table(["network", "float32", "compiled bfloat16", "difference"], rows),
        "",
        f"`{result['network']}`, {result['images']:,} images, {result['epochs']} epochs, "
        f"{result['seeds']} seeds: mean ± deviation; the difference with its standard error.",
    ]


def plans_table(result: dict[str, Any]) -> list[str]:
    """Seconds that a plan says and that a run takes, by recipe and stage, as Markdown."""
    rows = []
    for recipe, plan in result["plans"].items():
        for stage, row in {"all": plan, **plan["stages"]}.items():
            numbers = (f"{row['planned']:.1f}", f"{row['taken']:.1f}")
            rows.append([f"`{recipe}`", stage, *numbers, f"{row['planned'] / row['taken']:.2f}"])
    heads = ["recipe", "stage", "planned", "taken", "ratio"]
    return [*table(heads, rows, words=2), "", "Seconds; a plan and then a run, by the commands."]
