"""Line charts as inline SVG: axes, ticks, gaps where a value is not finite, descriptions."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from distill.report.scales import Scale, clean, finite, fit_scale, tick_labels, ticks

WIDTH = 480

HEIGHT = 270

_LEFT, _TOP, _BOTTOM = 52, 30, 40

_LABEL_CHARACTERS = 18

_LABEL_LINE = 14

_MAX_POINTS = 400

_MAX_DOTTED_POINTS = 12


@dataclass(frozen=True)
class Series:
    """One line: (x, y) in the order of x. A y that is not finite is a gap; `faint` stays behind."""

    name: str
    points: Sequence[tuple[float, float]]
    faint: bool = False


@dataclass(frozen=True)
class LineChart:
    """What a chart shows. `name` is a slug, unique on its page; `percent` shows y as percents."""

    name: str
    title: str
    note: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    percent: bool = False


def line_chart(chart: LineChart) -> Markup:
    """A `<figure>` with one SVG; empty markup if no series has a point.

    Long series are thinned to the extremes of equal stretches, so a spike stays visible. The y
    axis becomes logarithmic when positive values span a factor of 50, and says so.
    """
    series = [item for item in map(_clean_series, chart.series) if item.points]
    if not series:
        return Markup("")
    xs = [x for item in series for x, _ in item.points]
    ys = clean(y for item in series for _, y in item.points)
    body = _plot(chart, series, xs, ys) if ys else _nothing_finite()
    lines = [_describe(item, chart.percent) for item in series if not item.faint]
    text = " ".join([chart.note, *lines])
    return figure(chart.name, chart.title, chart.note, text, (HEIGHT, body))


def figure(
    name: str, title: str, note: str, text: str, drawing: tuple[int, Markup], role: str = "img"
) -> Markup:
    """A captioned `<figure>` round a drawing (height, markup), described for screen readers.

    Args:
        name: slug, unique on its page.
        title: of the figure.
        note: one line below the title; may be empty.
        text: for screen readers.
        drawing: height and markup, `WIDTH` wide.
        role: "img", or "group" for a drawing with parts that can be focused.
    """
    height, body = drawing
    return Markup(
        '<figure class="chart"><figcaption><strong>{title}</strong>{note}</figcaption>'
        '<svg role="{role}" aria-labelledby="{name}-title {name}-desc" '
        'viewBox="0 0 {width} {height}">'
        '<title id="{name}-title">{title}</title><desc id="{name}-desc">{text}</desc>{body}'
        "</svg></figure>"
    ).format(
        role=role,
        name=name,
        title=title,
        note=Markup("<span>{}</span>").format(note) if note else "",
        text=text.strip(),
        width=WIDTH,
        height=height,
        body=body,
    )


def x_axis(scale: Scale, bottom: float, values: Sequence[float], texts: Sequence[str]) -> Markup:
    """The ticks of a horizontal axis at `bottom`, with their texts below."""
    marks = [
        Markup(
            '<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{end:.1f}"/>'
            '<text class="middle" x="{x:.1f}" y="{text_y:.1f}">{text}</text>'
        ).format(x=scale(value), y=bottom, end=bottom + 4, text_y=bottom + 17, text=text)
        for value, text in zip(values, texts, strict=True)
    ]
    return Markup("").join(marks)


def _clean_series(series: Series) -> Series:
    pairs = ((finite(x), finite(y)) for x, y in series.points)
    nan = float("nan")
    points = [(x, nan if y is None else y) for x, y in pairs if x is not None]
    return Series(series.name, _thin(points), series.faint)


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= _MAX_POINTS:
        return points
    width = -(-2 * len(points) // _MAX_POINTS)
    kept = points[:1]
    for begin in range(0, len(points), width):
        window = points[begin : begin + width]
        known = [point for point in window if finite(point[1]) is not None]
        extremes = {min(known, key=_height), max(known, key=_height)} if known else {window[0]}
        kept.extend(sorted(extremes - {points[0]}))
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _height(point: tuple[float, float]) -> float:
    return point[1]


def _plot(
    chart: LineChart, series: Sequence[Series], xs: Sequence[float], ys: Sequence[float]
) -> Markup:
    shown = [item for item in series if not item.faint]
    labelled = list(enumerate(shown)) if len(series) > 1 else []
    longest = max((min(len(item.name), _LABEL_CHARACTERS) for _, item in labelled), default=0)
    right = WIDTH - 14 - (8 + 6.6 * longest if labelled else 0)
    across = fit_scale(xs, (_LEFT, right), padding=0.0)
    up = fit_scale(ys, (HEIGHT - _BOTTOM, _TOP), log=not chart.percent)
    if chart.percent and max(ys) <= 1 < up.high:
        up = Scale(up.low, 1.0, up.start, up.end)
    lines = Markup("").join(
        [_line(item, across, up, "faint") for item in series if item.faint]
        + [_line(item, across, up, f"line s{i % 6}") for i, item in enumerate(shown)]
    )
    return _axes(chart, across, up, right) + lines + _end_labels(labelled, up, right)


def _axes(chart: LineChart, across: Scale, up: Scale, right: float) -> Markup:
    bottom = HEIGHT - _BOTTOM
    x_values, y_values = ticks(across, whole=True), ticks(up)
    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{left}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="end" x="{text_x}" y="{text_y:.1f}">{text}</text>'
        ).format(
            left=_LEFT, right=right, y=up(value), text_x=_LEFT - 7, text_y=up(value) + 4, text=t
        )
        for value, t in zip(y_values, tick_labels(y_values, percent=chart.percent), strict=True)
    )
    y_label = chart.y_label + (", log scale" if up.log else "")
    frame = Markup(
        '<line class="axis" x1="{left}" x2="{right:.1f}" y1="{bottom}" y2="{bottom}"/>'
        '<text class="label" x="0" y="14">{y_label}</text>'
        '<text class="label end" x="{right:.1f}" y="{below}">{x_label}</text>'
    ).format(
        left=_LEFT,
        right=right,
        bottom=bottom,
        y_label=y_label,
        below=HEIGHT - 5,
        x_label=chart.x_label,
    )
    return grid + frame + x_axis(across, bottom, x_values, tick_labels(x_values))


def _line(item: Series, across: Scale, up: Scale, style: str) -> Markup:
    segments: list[list[tuple[float, float]]] = [[]]
    for x, y in item.points:
        if finite(y) is None or (up.log and y <= 0):
            segments.append([])
        else:
            segments[-1].append((across(x), up(y)))
    path = " ".join(
        "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in segment)
        for segment in segments
        if len(segment) > 1
    )
    few = len(item.points) <= _MAX_DOTTED_POINTS and not item.faint
    dots = [point for segment in segments for point in segment if few or len(segment) == 1]
    drawn = Markup('<path d="{}"/>').format(path) if path else Markup("")
    drawn += Markup("").join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(x, y) for x, y in dots
    )
    return Markup('<g class="{}">{}</g>').format(style, drawn)


def _end_labels(labelled: Sequence[tuple[int, Series]], up: Scale, right: float) -> Markup:
    """Names at the lines' ends, pushed apart where they would overlap."""
    ends = sorted(
        (up(known[-1]), position, item.name)
        for position, item in labelled
        if (known := clean(y for _, y in item.points if y > 0 or not up.log))
    )
    heights = [end[0] for end in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + _LABEL_LINE)
    limit = float(HEIGHT - _BOTTOM)
    for i in range(len(heights) - 1, -1, -1):
        heights[i] = min(heights[i], limit)
        limit = heights[i] - _LABEL_LINE
    return Markup("").join(
        Markup('<text class="name s{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
            position % 6, right + 8, height + 4, _short(name)
        )
        for height, (_, position, name) in zip(heights, ends, strict=True)
    )


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "\u2026"


def _describe(item: Series, percent: bool) -> str:
    known = [(x, y) for x, y in item.points if finite(y) is not None]
    if not known:
        return f"{item.name}: no finite value."
    factor, unit = (100, " %") if percent else (1, "")
    numbers = (known[0][1], known[-1][1], min(known, key=_height)[1], max(known, key=_height)[1])
    first, last, low, high = (f"{factor * number:.4g}{unit}" for number in numbers)
    return (
        f"{item.name}: from {first} at {known[0][0]:g} to {last} at {known[-1][0]:g}, "
        f"lowest {low}, highest {high}."
    )


def _nothing_finite() -> Markup:
    return Markup('<text class="middle" x="{}" y="{}">No finite value was recorded.</text>').format(
        WIDTH / 2, HEIGHT / 2
    )
