"""The rate-distortion plot of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from distill.evaluation.jobs import RANDOM
from distill.evaluation.sweep.jobs import HARD, SYNTHETIC, Point
from distill.store.files import atomic_path

COLOURS = ("#1f5fa8", "#b3541e", "#2f7d4f", "#7a3e9d", "#8a6d00", "#555555")


def draw_curves(points: Sequence[Point], path: Path) -> None:
    """Draw bytes against accuracy: the same points give the same file.

    One panel for each student: the codecs on the synthetic set with error bars (one standard
    deviation over seeds), dominated ones hollow and the others joined; random real images under
    the same labels in grey; hard labels as lines.

    Args:
        points: of one sweep.
        path: ending in .svg or .png.
    """

    def draw(panel: Any, student: str) -> None:
        _panel(panel, student, [point for point in points if point.student == student])

    draw_panels([point.student for point in points], draw, path)


def draw_panels(
    students: Iterable[str],
    draw: Callable[[Any, str], None],
    path: Path,
    tooltips: Mapping[str, str] | None = None,
) -> None:
    """Draw a panel for each student, one below the other: the same drawing gives the same file.

    Args:
        students: network specs, which may come several times.
        draw: fills the axes of a student.
        path: ending in .svg or .png.
        tooltips: what an SVG says of the artists with these ids (`set_gid`), where a pointer
            rests on them.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(students))
    kind = path.suffix.removeprefix(".")
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "limbeck", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 5.2 * len(names)), layout="constrained")
        panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
        for panel, student in zip(panels, names, strict=True):
            draw(panel, student)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata, dpi=144)
            if kind == "svg" and tooltips:
                _add_tooltips(temporary, tooltips)


def _add_tooltips(path: Path, tooltips: Mapping[str, str]) -> None:
    """Give groups of an SVG a title, which browsers show and screen readers say."""
    text = path.read_text(encoding="utf-8")
    for name, words in tooltips.items():
        group = f'<g id="{name}">'
        text = text.replace(group, f"{group}\n<title>{escape(words)}</title>")
    path.write_text(text, encoding="utf-8")


def _panel(panel: Any, student: str, points: Sequence[Point]) -> None:
    coded = [point for point in points if point.codec != HARD]
    own = [point for point in coded if point.images == SYNTHETIC]
    for index, point in enumerate(own):
        colour = COLOURS[index % len(COLOURS)]
        face = "none" if point.dominated else colour
        panel.errorbar(
            point.bytes, 100 * point.mean, 100 * point.std, fmt="o", color=colour, mfc=face,
            capsize=2, ms=6, lw=1,
        )  # fmt: skip
        offset = (5, 4 + 9 * (index % 2))
        panel.annotate(
            _words(point), (point.bytes, 100 * point.mean), xytext=offset,
            textcoords="offset points", fontsize=6, color=colour,
        )  # fmt: skip
    best = sorted((point.bytes, point.mean) for point in own if not point.dominated)
    panel.plot([x for x, _ in best], [100 * y for _, y in best], "-", color="#999999", lw=0.8)
    grey = [point for point in coded if point.images == RANDOM]
    if grey:
        panel.errorbar(
            [point.bytes for point in grey], [100 * point.mean for point in grey],
            [100 * point.std for point in grey], fmt="s", color="#aaaaaa", ms=4, lw=1,
            label="random real images, same labels",
        )  # fmt: skip
    for point, style in _hard(points):
        name = "synthetic set" if point.images == SYNTHETIC else "random real images"
        panel.axhline(
            100 * point.mean, ls=style, lw=1, color="#444444", label=f"{name}, hard labels"
        )
    panel.set(
        xscale="log", title=student, xlabel="bytes of labels and views (log scale)",
        ylabel="test accuracy, %",
    )  # fmt: skip
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7, loc="lower right")


def _words(point: Point) -> str:
    """The codec, and what a receiver must fetch besides its bytes."""
    if not point.external:
        return point.codec
    return f"{point.codec} (and {point.external / 2**20:.1f} MiB to fetch)"


def _hard(points: Sequence[Point]) -> list[tuple[Point, str]]:
    styles = {SYNTHETIC: "--", RANDOM: ":"}
    return [(point, styles[point.images]) for point in points if point.codec == HARD]
