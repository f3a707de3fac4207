"""The table that a run and an evaluation end with on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from distill.report.verdict import Score, best_by_student, find_verdict, gain_of, read_score

THIS_SET = "this set"

# Columns that stand to the left; the others hold counts.
_LEFT = (0, 1, 2)


def result_lines(result: Mapping[str, Any], width: int | None = None) -> list[str]:
    """Accuracies of a set and of its controls by student, bytes, and whether a gain is clear.

    Args:
        result: what `distill evaluate --json` prints, or the summary of a run.
        width: columns of the terminal, below which remarks have lines of their own; None for
            lines of any length.
    """
    lines: list[str] = []
    for student, rows in _rows(result).items():
        lines += [student, *aligned(rows, width)]
    for student, sources in result.get("scores", {}).items():
        lines.append(f"scores of {student}")
        lines += aligned([(source, _scores(scores), "") for source, scores in sources.items()])
    counted = result["bytes"]
    sentences = (
        f"bytes: images {counted['images']:,}, labels {counted['labels']:,}, "
        f"projector {counted['projector']:,}, external {counted['external']:,}; "
        f"{counted['total']:,} in all with the labels of the fewest bytes",
        find_verdict(result).sentence,
    )
    for sentence in sentences:
        lines += [sentence] if width is None else textwrap.wrap(sentence, max(width, 20))
    return lines


def spread_text(stats: Mapping[str, Any]) -> str:
    """A mean in percent with its spread over the runs; a single run has none."""
    spread = f" ± {100 * stats['std']:.2f}" if len(stats["runs"]) > 1 else ""
    return f"{100 * stats['mean']:5.2f}{spread} %"


def seeds_text(count: int) -> str:
    """How many seeds."""
    return f"{count} seed" + ("" if count == 1 else "s")


def _rows(result: Mapping[str, Any]) -> dict[str, list[Sequence[str]]]:
    """By student: set or control, labels, accuracy, seeds, bytes, and remarks last."""
    rows: dict[str, list[Sequence[str]]] = {}
    for title, students in ((THIS_SET, result["students"]), *result["controls"].items()):
        for student, sources in students.items():
            for source, stats in sources.items():
                taken = stats.get("bytes")
                if title == THIS_SET:
                    taken = result["bytes"].get("totals", {}).get(source)
                row = (
                    title,
                    source,
                    spread_text(stats),
                    seeds_text(len(stats["runs"])),
                    "" if taken is None else f"{taken:,} bytes",
                    ", ".join(_remarks(result, title, student, source)),
                )
                rows.setdefault(student, []).append(row)
    return rows


def _remarks(result: Mapping[str, Any], title: str, student: str, source: str) -> Iterator[str]:
    """What else there is to say of one accuracy."""
    own = result["students"].get(student, {}).get(source)
    stats = own if title == THIS_SET else result["controls"][title][student][source]
    ours, score = read_score(student, source, own or {}), read_score(student, source, stats)
    random = _random_beside(result["controls"].get("random", {}), student, source)
    if title == THIS_SET and ours is not None and random is not None:
        yield gain_of(ours, random).text("random images")
    if "coding" in stats:
        formed = f", {stats['factor'] ** 2} in one" if stats["factor"] > 1 else ""
        yield f"{stats['images']:,} images as {stats['coding']}{formed}"
        if ours is not None and score is not None:
            yield f"the set: {gain_of(ours, score).text()}"
    elif "bits" in stats:
        yield f"of all images, {stats['bits']} bits a weight"
    if "balanced" in stats:
        yield f"{100 * stats['balanced']:.2f} % balanced over classes"


def _random_beside(
    controls: Mapping[str, Mapping[str, Any]], student: str, source: str
) -> Score | None:
    """Random images under the same labels, which alone tell images apart, or else the best."""
    same = read_score(student, source, controls.get(student, {}).get(source, {}))
    return same or best_by_student(controls).get(student)


def _scores(scores: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', '-')} {part['score']:.3f}" for name, part in scores.items()
    )


def aligned(rows: Sequence[Sequence[str]], width: int | None = None) -> Iterable[str]:
    """Rows with their columns below each other, the last one, of remarks, after them or below.

    Args:
        rows: cells, as many in each; the first three columns stand to the left.
        width: columns of the terminal; None for lines of any length.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *cells, remark in rows:
        line = "  ".join(
            cell.ljust(widths[place]) if place in _LEFT else cell.rjust(widths[place])
            for place, cell in enumerate(cells)
        )
        whole = f"  {line}  {remark}".rstrip()
        if width is None or len(whole) <= width or not remark:
            yield whole
        else:
            yield f"  {line}".rstrip()
            yield from textwrap.wrap(
                remark, max(width, 20), initial_indent="    ", subsequent_indent="    "
            )
