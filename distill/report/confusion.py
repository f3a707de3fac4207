"""Confusion matrices as tables, and the mistakes that students make most often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.report.inputs import class_name
from distill.report.scales import finite
from distill.report.verdict import read_score, source_name

_MAX_MISTAKES = 5


@dataclass(frozen=True)
class ConfusionCell:
    """Test images of a row's class that were taken for a column's.

    Attributes:
        count: over all seeds, as text; empty for none.
        share: percent of the row's images, rounded, for shading.
        right: whether the row's class is the column's.
    """

    count: str
    share: int
    right: bool


@dataclass(frozen=True)
class ConfusionTable:
    """The matrix of one student with its best label source.

    Attributes:
        student: network spec.
        source: label source, as a reader calls it.
        classes: names, in order.
        rows: a row for each true class, a cell for each predicted one.
        mistakes: the most frequent mistakes in words, the worst first.
    """

    student: str
    source: str
    classes: list[str]
    rows: list[list[ConfusionCell]]
    mistakes: list[str]


def confusion_tables(summary: Mapping[str, Any], names: Sequence[str]) -> list[ConfusionTable]:
    """A table for each student whose confusions were kept, with its most accurate labels."""
    tables = []
    for student, matrices in (summary.get("confusion") or {}).items():
        entries = (summary.get("students") or {}).get(student) or {}
        scores = [
            score
            for source in matrices
            if (score := read_score(student, source, entries.get(source) or {}))
        ]
        if scores:
            best = max(scores, key=lambda score: score.mean).source
            tables.append(_table(student, best, matrices[best], names))
    return tables


def _table(
    student: str, source: str, matrix: Sequence[Sequence[int]], names: Sequence[str]
) -> ConfusionTable:
    classes = [class_name(names, index) for index in range(len(matrix))]
    rows = [
        [_cell(count, sum(row), true == column) for column, count in enumerate(row)]
        for true, row in enumerate(matrix)
    ]
    return ConfusionTable(student, source_name(source), classes, rows, _mistakes(matrix, classes))


def _cell(count: int, total: int, right: bool) -> ConfusionCell:
    share = round(100 * count / total) if total else 0
    return ConfusionCell(f"{count:,}" if finite(count) else "", share, right)


def _mistakes(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> list[str]:
    wrong = [
        (count / sum(row), true, column)
        for true, row in enumerate(matrix)
        for column, count in enumerate(row)
        if true != column and count > 0
    ]
    worst = sorted(wrong, key=lambda item: (-item[0], item[1], item[2]))[:_MAX_MISTAKES]
    return [
        f"{100 * share:.1f} % of {classes[true]} are taken for {classes[column]}"
        for share, true, column in worst
    ]
