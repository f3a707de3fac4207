"""Markdown tables, and accuracies in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """The lines of a table; the first `words` columns stand to the left, the rest to the right."""
    rules = "|---" * words + "|---:" * (len(heads) - words) + "|"
    return [f"| {' | '.join(heads)} |", rules, *(f"| {' | '.join(row)} |" for row in rows)]


def percent(stats: dict[str, Any] | None) -> str:
    """Mean and standard deviation in percent, the mean alone of a single run, or a dash."""
    if stats is None:
        return "–"
    if len(stats.get("runs", ())) == 1:
        return f"{100 * stats['mean']:.1f}"
    return f"{100 * stats['mean']:.1f} ± {100 * stats['std']:.1f}"
