"""The README's first table: sets beside coded real images in as many bytes; see `tables.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from markdown_table import percent, table

CONTROLS = ("coded", "herded")


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
