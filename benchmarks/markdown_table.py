"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """The lines of a table; the first `words` columns stand to the left, the rest to the right."""
    rules = "|---" * words + "|---:" * (len(heads) - words) + "|"
    return [f"| {' | '.join(heads)} |", rules, *(f"| {' | '.join(row)} |" for row in rows)]
