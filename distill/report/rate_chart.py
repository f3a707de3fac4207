"""The rate-distortion plot as inline SVG: points that can be focused and say what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from distill.report.charts import WIDTH, figure, x_axis
from distill.report.rates import RatePoint, rate_points
from distill.report.scales import (
    Scale,
    count_text,
    fit_scale,
    percent,
    size_text,
    tick_labels,
    ticks,
)

_HEIGHT = 320

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, WIDTH - 16, 30, 276

_CHARACTER = 6.4

_LINE = 13.0

_NOTE = "Filled: the synthetic set. Open: random real images with the same labels."

# Offsets of a name from its point (dx, dy, anchor), the best first.
_OFFSETS = (
    (0, -10, "middle"),
    (9, -8, "start"),
    (-9, -8, "end"),
    (0, 20, "middle"),
    (9, 4, "start"),
    (-9, 4, "end"),
    (9, 16, "start"),
    (-9, 16, "end"),
    (8, -12, "end"),
    (8, 26, "end"),
)

# Up to so many points are all named; of more, only those that no other dominates.
_MAX_NAMED_POINTS = 8

Box = tuple[float, float, float, float]


def rate_scales(points: Sequence[RatePoint]) -> tuple[Scale, Scale]:
    """Axes (bytes, accuracy) that several plots share, so that they can be compared.

    Args:
        points: at least one.
    """
    sizes = [max(point.bytes, 1.0) for point in points]
    ends = [value for p in points for value in (p.mean - p.std, p.mean + p.std)]
    across = fit_scale(sizes, (_LEFT + 6, _RIGHT), log=True)
    up = fit_scale([min(max(end, 0.0), 1.0) for end in ends], (_BOTTOM, _TOP))
    return across, Scale(up.low, min(1.0, up.high), up.start, up.end)


def rate_chart(
    name: str, title: str, points: Sequence[RatePoint], scales: tuple[Scale, Scale]
) -> Markup:
    """A `<figure>`: bytes across, accuracy up, one point for each way of labelling.

    The points that no other dominates are joined and named where there is room; every point can
    be reached by the keyboard and carries its text.

    Args:
        name: slug, unique on its page.
        title: of the figure.
        points: sorted by bytes.
        scales: of `rate_scales`.
    """
    own = [point for point in points if not point.control]
    drawn = Markup("").join(_mark(point, scales) for point in points)
    body = _frame(scales) + _front(own, scales) + _names(own, points, scales) + drawn
    text = " ".join(f"{point.text}." for point in points)
    return figure(name, title, _NOTE, text, (_HEIGHT, body), role="group")


def _frame(scales: tuple[Scale, Scale]) -> Markup:
    across, up = scales
    y_values, x_values = ticks(up), ticks(across)
    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="end" x="{text_x}" y="{text_y:.1f}">{text}</text>'
        ).format(left=_LEFT, right=_RIGHT, y=up(v), text_x=_LEFT - 7, text_y=up(v) + 4, text=label)
        for v, label in zip(y_values, tick_labels(y_values, percent=True), strict=True)
    )
    log = ", log scale" if across.log else ""
    labels = Markup(
        '<line class="axis" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
        '<text class="label" x="0" y="14">accuracy, %</text>'
        '<text class="label end" x="{right}" y="{below}">bytes of labels{log}</text>'
    ).format(left=_LEFT, right=_RIGHT, y=_BOTTOM, below=_HEIGHT - 8, log=log)
    return grid + labels + x_axis(across, _BOTTOM, x_values, [size_text(v) for v in x_values])


def _position(point: RatePoint, scales: tuple[Scale, Scale]) -> tuple[float, float]:
    across, up = scales
    return across(max(point.bytes, 1.0)), up(point.mean)


def _front(own: Sequence[RatePoint], scales: tuple[Scale, Scale]) -> Markup:
    best = [_position(point, scales) for point in own if not point.dominated]
    if len(best) < 2:
        return Markup("")
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in best)
    return Markup('<path class="front" d="{}"/>').format(path)


def _mark(point: RatePoint, scales: tuple[Scale, Scale]) -> Markup:
    (x, y), up = _position(point, scales), scales[1]
    low, high = (up(min(max(point.mean + s * point.std, up.low), up.high)) for s in (-1, 1))
    kind = "point" + " control" * point.control + " beaten" * point.dominated
    return Markup(
        '<g class="{kind}" tabindex="0" role="img" aria-label="{text}">'
        '<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        '<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/></g>'
    ).format(kind=kind, text=point.text, x=x, y=y, low=low, high=high)


def _names(
    own: Sequence[RatePoint], points: Sequence[RatePoint], scales: tuple[Scale, Scale]
) -> Markup:
    """Names beside the points of the front; without free space, only the tooltip names a point."""
    taken = [_mark_box(*_position(point, scales)) for point in points]
    drawn = Markup("")
    # From the right, where the edge leaves the fewest offsets.
    for point in reversed(own):
        if point.dominated and len(own) > _MAX_NAMED_POINTS:
            continue
        x, y = _position(point, scales)
        width = _CHARACTER * len(point.name)
        for dx, dy, anchor in _OFFSETS:
            left = x + dx - (width if anchor == "end" else width / 2 if anchor == "middle" else 0)
            box = (left, y + dy - 10, left + width, y + dy - 10 + _LINE)
            if box[0] < _LEFT or box[2] > _RIGHT or box[1] < 0 or box[3] > _BOTTOM:
                continue
            if any(_overlap(box, other) for other in taken):
                continue
            taken.append(box)
            drawn += Markup('<text class="named {}" x="{:.1f}" y="{:.1f}">{}</text>').format(
                anchor, x + dx, y + dy, point.name
            )
            break
    return drawn


def _mark_box(x: float, y: float) -> Box:
    return (x - 6, y - 6, x + 6, y + 6)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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
    return RateSection(charts, [_table_row(point) for point in points])


def _table_row(point: RatePoint) -> RateRow:
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
