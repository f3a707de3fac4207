"""Dot charts as inline SVG: every seed of every label source and control, on one axis."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from distill.report.charts import WIDTH, figure, x_axis
from distill.report.scales import Scale, clean, finite, fit_scale, percent, tick_labels, ticks

_LEFT, _TOP, _ROW, _BOTTOM = 164, 8, 27, 44

_RIGHT = WIDTH - 46


@dataclass(frozen=True)
class DotRow:
    """One label source: the accuracy (fraction) of each seed and their mean; or a control."""

    label: str
    runs: Sequence[float]
    mean: float
    control: bool


def shared_scale(rows: Sequence[DotRow]) -> Scale | None:
    """One accuracy axis for several charts, so that they can be compared; None without values."""
    values = clean(value for row in rows for value in (*row.runs, row.mean))
    if not values:
        return None
    scale = fit_scale(values, (_LEFT, _RIGHT))
    return Scale(scale.low, min(1.0, scale.high), _LEFT, _RIGHT) if max(values) <= 1 else scale


def dot_chart(name: str, title: str, rows: Sequence[DotRow], scale: Scale) -> Markup:
    """A `<figure>` with a row for each label source: a dot for each seed, a bar for the mean."""
    bottom = _TOP + _ROW * len(rows)
    values = ticks(scale)
    grid = Markup("").join(
        Markup('<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>').format(
            x=scale(value), top=_TOP, bottom=bottom
        )
        for value in values
    )
    drawn = Markup("").join(_row(row, _TOP + _ROW * i, scale) for i, row in enumerate(rows))
    axis = x_axis(scale, bottom, values, tick_labels(values, percent=True))
    label = Markup('<text class="label end" x="{}" y="{}">accuracy, %</text>').format(
        _RIGHT, bottom + 36
    )
    text = " ".join(
        f"{row.label}: mean {percent(row.mean)} %, seeds {', '.join(map(percent, row.runs))}."
        for row in rows
    )
    return figure(name, title, "", text, (bottom + _BOTTOM, grid + drawn + axis + label))


def _row(row: DotRow, top: float, scale: Scale) -> Markup:
    middle = top + _ROW / 2
    dots = Markup("").join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.6"/>').format(scale(value), middle)
        for value in clean(row.runs)
    )
    mean = finite(row.mean)
    bar = (
        Markup('<line class="mean" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>').format(
            x=scale(mean), a=middle - 8, b=middle + 8
        )
        if mean is not None
        else Markup("")
    )
    return Markup(
        '<g class="{kind}"><text class="end" x="{left}" y="{text_y:.1f}">{label}</text>{dots}{bar}'
        '<text x="{right}" y="{text_y:.1f}">{mean}</text></g>'
    ).format(
        kind="dots control" if row.control else "dots",
        left=_LEFT - 12,
        right=_RIGHT + 10,
        text_y=middle + 4,
        label=row.label,
        dots=dots,
        bar=bar,
        mean=percent(row.mean),
    )
