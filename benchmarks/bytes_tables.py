"""The README's first table: sets beside coded real images in as many bytes; see `tables.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from markdown_table import percent, table

CONTROLS = ("coded", "herded")

# The README's table by bytes: result file, and what was made.
AGAINST_CODED = (
    ("fashion-mnist-30kb", "Fashion-MNIST in two tones, labelled by a committee"),
    ("fashion-mnist-30kb-resnet", "Fashion-MNIST in two tones, labelled by a committee"),
    ("fashion-mnist-30kb-network", "Fashion-MNIST, and a network for its labels"),
    ("fashion-mnist-30kb-network-resnet", "Fashion-MNIST, and a network for its labels"),
    ("fashion-mnist-ipc10-network-bytes", "Fashion-MNIST, matched, and a network for its labels"),
    (
        "fashion-mnist-ipc10-network-bytes-resnet",
        "Fashion-MNIST, matched, and a network for its labels",
    ),
    (
        "fashion-mnist-ipc50-network-resnet",
        "Fashion-MNIST, matched, and a network for its labels",
    ),
    ("digits-2kb", "handwritten digits, matched, and a network for their labels"),
)


def against_coded(results: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """Every student of some sets beside the better of the coded real images, least gain first.

    Args:
        results: links and files of runs that have these controls.
    """
    rows = [row for link, result in results for row in _rows(link, result["summary"])]
    heads = ["set", "bytes", "student", "this set", "coded real images", "gain"]
    return table(heads, (cells for _, cells in sorted(rows)), words=1)


def _rows(link: str, summary: dict[str, Any]) -> Iterator[tuple[float, list[str]]]:
    for student, sources in summary["students"].items():
        # Labels are chosen as a user would: those of the most bytes within the budget.
        source = max(sources, key=lambda name: summary["bytes"]["totals"][name])
        ours = sources[source]
        found = [
            summary["controls"][name][student][source]
            for name in CONTROLS
            if name in summary["controls"]
        ]
        best = max(found, key=lambda stats: float(stats["mean"]))
        gain = round(100 * ours["mean"], 1) - round(100 * best["mean"], 1)
        real = f"{percent(best)} ({best['images']:,} images)"
        size = f"{summary['bytes']['totals'][source]:,}"
        yield gain, [link, size, f"`{student}`", percent(ours), real, f"{gain:+.1f}"]


def labels_table(result: dict[str, Any]) -> list[str]:
    """Students on coded images by whose labels they had, as Markdown; see `coded_labels.py`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        found.setdefault(row["labels"], []).append(row)
    rows = []
    for kind, own in found.items():
        right = own[0]["right"]
        words = "–" if right is None else f"{100 * right:.1f} %"
        rows.append([kind, words, *(percent(row) for row in own)])
    first = next(iter(found.values()))
    columns = [f"`{row['student']}`, {row['epochs']} epochs" for row in first]
    return [
        *table(["labels", "name the class", *columns], rows, words=1),
        "",
        f"{result['images']:,} coded images, {len(result['seeds'])} students at a learning rate of "
        f"{result['lr']:g}, on {result['validation_images']:,} held-out training images.",
    ]


def ways_table(result: dict[str, Any]) -> list[str]:
    """Students by their labels and by what differs in their training; see `student_ways.py`."""
    rows, students, several = [], list[str](), len(result["runs"]) > 1
    for name, run in result["runs"].items():
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for row in run["rows"]:
            found.setdefault((row["labels"], row["way"]), {})[row["student"]] = row
            students += [row["student"]] if row["student"] not in students else []
        for (labels, way), cells in found.items():
            words = f"`{way}`" if way else "as the recipe has it"
            right = run["committee_right"]
            teacher = "–" if right is None else f"{100 * right:.1f} %"
            start = [name, teacher] if several else []
            rows.append([*start, f"`{labels}`", words, *(percent(cells[s]) for s in students)])
    first = ["run", "teacher"] if several else []
    heads = [*first, "labels", "training", *(f"`{student}`" for student in students)]
    images = {f"{run['images']:,}" for run in result["runs"].values()}
    held = {f"{run['validation_images']:,}" for run in result["runs"].values()}
    where = "images of the set" if result["on"] == "set" else "random real images"
    seeds = len(result["seeds"])
    return [
        *table(heads, rows, words=len(heads) - len(students)),
        "",
        f"{' and '.join(sorted(images))} {where}, {seeds} student{'s' * (seeds > 1)}, on "
        f"{' and '.join(sorted(held))} held-out training images.",
    ]
