"""The table of a sweep over ways to keep images, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distill.evaluation.jobs import CODED, WHOLE
from distill.evaluation.sweep.images.jobs import best_control

_HEAD = (
    "student",
    "coding",
    "images a class",
    "labels",
    "bytes",
    "of the images",
    "of the labels",
    "squared error",
    "accuracy, %",
    "coded real images, %",
    "gain",
    "front",
)

# Columns of words; the others are numbers and stand to the right.
_WORDS = (0, 1, 3)


def table_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Every point beside the best control in no more bytes, by student and bytes.

    Args:
        result: what `run_image_sweep` returns.
    """
    points = result["points"]
    yield from _aligned([_HEAD, *(_row(point, result) for point in points)])
    yield ""
    for student, sources in result["controls"][WHOLE].items():
        for stats in sources.values():
            yield f"All real images, {student}: {accuracy_text(stats)} %."
    lost = [point for point in points if point["gain"] is not None and point["gain"] <= 0]
    if lost:
        yield f"{len(lost)} of {len(points)} points are no better than coded real images."
    if any(point["external"] for point in points):
        largest = max(point["external"] for point in points)
        yield f"Besides, up to {largest:,} bytes are fetched elsewhere."


def kept_text(point: Mapping[str, Any]) -> str:
    """How the images of a point are kept."""
    return f"{point['coding']}, {point['ipc']} a class"


def accuracy_text(stats: Mapping[str, Any]) -> str:
    """A mean with its spread over the seeds, in percent."""
    spread = f" ± {100 * stats['std']:.2f}" if len(stats["runs"]) > 1 else ""
    return f"{100 * stats['mean']:.2f}{spread}"


def control_text(stats: Mapping[str, Any]) -> str:
    """The accuracy of coded real images, how many there are, and how they are kept."""
    formed = f", {stats['factor'] ** 2} in one" if stats["factor"] > 1 else ""
    return f"{accuracy_text(stats)} ({stats['images']} by {stats['coding']}{formed})"


def _row(point: Mapping[str, Any], result: Mapping[str, Any]) -> Sequence[str]:
    real = best_control(result["controls"][CODED][point["student"]], point["bytes"])
    gain = point["gain"]
    return (
        point["student"],
        point["coding"],
        str(point["ipc"]),
        point["labels"],
        f"{point['bytes']:,}",
        f"{point['image_bytes']:,}",
        f"{point['label_bytes']:,}",
        f"{point['error']:.2g}",
        accuracy_text(point),
        "" if real is None else control_text(real),
        "" if gain is None else f"{100 * gain:+.2f}",
        "" if point["dominated"] else "yes",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    for number, row in enumerate(rows):
        cells = (
            cell.ljust(width) if place in _WORDS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "| " + " | ".join(cells) + " |"
        if number == 0:
            lines = (
                "-" * width if place in _WORDS else "-" * (width - 1) + ":"
                for place, width in enumerate(widths)
            )
            yield "| " + " | ".join(lines) + " |"
