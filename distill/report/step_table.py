"""The table of an evaluation in which classes arrive step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.report.result_table import THIS_SET, aligned, seeds_text, spread_text
from distill.report.verdict import Score, gain_of, read_score


def step_lines(result: Mapping[str, Any], width: int | None = None) -> list[str]:
    """Accuracies in percent after each step, and their average, by student.

    Args:
        result: what `distill evaluate --steps N --json` prints.
        width: columns of the terminal, see `result_lines`.
    """
    steps = result["steps"]
    lines = [
        f"classes arrive in {len(steps)} steps; accuracy in % on the test images of those so far"
    ]
    head = ["", "classes", "average", *(str(step["classes"]) for step in steps), "", ""]
    for student, sources in result["students"].items():
        controls = result["controls"]["random"][student]
        random = read_score(student, "hard", controls["hard"]["average"])
        rows = [head]
        rows += [_row(THIS_SET, source, found, random) for source, found in sources.items()]
        rows += [_row("random", source, found) for source, found in controls.items()]
        lines += [student, *aligned(rows, width)]
    return lines


def _row(
    title: str, source: str, found: Mapping[str, Any], random: Score | None = None
) -> list[str]:
    """The cells of one label source; beside random images, with what it gains."""
    average, own = found["average"], read_score("", source, found["average"])
    gain = "" if own is None or random is None else gain_of(own, random).text("random images")
    each = [f"{100 * stats['mean']:.2f}" for stats in found["steps"]]
    return [title, source, spread_text(average), *each, seeds_text(len(average["runs"])), gain]
