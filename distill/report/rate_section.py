"""The section of a page that shows bytes of labels against accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from distill.report.rate_chart import rate_chart, rate_scales
from distill.report.rates import RatePoint, rate_points
from distill.report.scales import count_text, percent


@dataclass(frozen=True)
class RateRow:
    """A point of the plot as texts."""

    name: str
    images: str
    student: str
    bytes: str
    external: str
    accuracy: str
    seeds: str


@dataclass(frozen=True)
class RateSection:
    """One plot for each student, and all their points as rows."""

    charts: list[Markup]
    rows: list[RateRow]


def rate_section(
    summary: Mapping[str, Any], sweep: Sequence[Mapping[str, Any]]
) -> RateSection | None:
    """The section of a run, or None where fewer than two points are known."""
    return section_of(rate_points(summary, sweep))


def section_of(students: Mapping[str, Sequence[RatePoint]]) -> RateSection | None:
    """The section of points by student; all plots share their axes. None without any."""
    points = [point for own in students.values() for point in own]
    if not points:
        return None
    scales = rate_scales(points)
    charts = [
        rate_chart(f"rate-{number}", student, own, scales)
        for number, (student, own) in enumerate(students.items())
    ]
    return RateSection(charts, [_row(point) for point in points])


def _row(point: RatePoint) -> RateRow:
    spread = f" ± {percent(point.std)}" if point.seeds > 1 else ""
    return RateRow(
        point.name,
        "random real" if point.control else "synthetic",
        point.student,
        count_text(point.bytes),
        count_text(point.external),
        f"{percent(point.mean)}{spread}",
        str(point.seeds),
    )
