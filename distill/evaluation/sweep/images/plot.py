"""The picture of a sweep over ways to keep images: bytes of everything against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.evaluation.jobs import CODED, WHOLE
from distill.evaluation.sweep.images.table import accuracy_text, control_text, kept_text
from distill.evaluation.sweep.plot import COLOURS, draw_panels

_MARKS = ("o", "^", "D", "v", "P", "X")

_GREY = "#999999"


def draw_image_curves(result: Mapping[str, Any], path: Path) -> None:
    """Draw bytes against accuracy: the same result gives the same file.

    One panel for each student: the points of the set with error bars (one standard deviation over
    seeds), a colour for each coding and a mark for each kind of labels, dominated ones hollow and
    the Pareto front joined; coded real images in as many bytes in grey; all real images as a line.
    In an SVG every point has a tooltip.

    Args:
        result: what `run_image_sweep` returns.
        path: ending in .svg or .png.
    """
    points = result["points"]
    colours = _looks([point["coding"] for point in points], COLOURS)
    marks = _looks([point["labels"] for point in points], _MARKS)
    names = {id(point): f"point-{place}" for place, point in enumerate(points)}
    tooltips = {names[id(point)]: point_text(point) for point in points}

    def draw(panel: Any, student: str) -> None:
        own = [point for point in points if point["student"] == student]
        for point in own:
            look = (colours[point["coding"]], marks[point["labels"]])
            _draw_point(panel, point, look, names[id(point)])
        best = [point for point in own if not point["dominated"]]
        panel.plot(
            [point["bytes"] for point in best], [100 * point["mean"] for point in best], "-",
            color=_GREY, lw=0.8, label="Pareto front",
        )  # fmt: skip
        number = list(result["controls"][CODED]).index(student)
        for place, (size, real) in enumerate(result["controls"][CODED][student].items()):
            name = f"coded-{number}-{place}"
            tooltips[name] = f"coded real images in {int(size):,} bytes: {control_text(real)}"
            _draw_control(panel, real, name, first=place == 0)
        _finish(panel, student, result, (colours, marks))

    draw_panels([point["student"] for point in points], draw, path, tooltips)


def point_text(point: Mapping[str, Any]) -> str:
    """Everything about a point of the set, for a tooltip."""
    place = "dominated" if point["dominated"] else "on the Pareto front"
    gain = point["gain"]
    beside = "" if gain is None else f"; {100 * gain:+.2f} points to coded real images"
    return (
        f"{kept_text(point)}, {point['labels']} labels: {accuracy_text(point)} %, "
        f"{point['bytes']:,} bytes ({point['image_bytes']:,} of images, {point['label_bytes']:,} "
        f"of labels), {place}{beside}"
    )


def _looks(names: Sequence[str], looks: Sequence[str]) -> dict[str, str]:
    return {name: looks[place % len(looks)] for place, name in enumerate(sorted(set(names)))}


def _draw_point(panel: Any, point: Mapping[str, Any], look: tuple[str, str], name: str) -> None:
    colour, mark = look
    where = (point["bytes"], 100 * point["mean"])
    bars = panel.errorbar(
        *where, 100 * point["std"], fmt=mark, color=colour,
        mfc="none" if point["dominated"] else colour, capsize=2, ms=6, lw=1,
    )  # fmt: skip
    bars.lines[0].set_gid(name)
    if not point["dominated"]:
        # The colour says which coding.
        panel.annotate(
            f"{point['ipc']} a class", where, xytext=(5, 4), textcoords="offset points", fontsize=6,
            color=colour,
        )  # fmt: skip


def _draw_control(panel: Any, real: Mapping[str, Any], name: str, *, first: bool) -> None:
    bars = panel.errorbar(
        real["bytes"], 100 * real["mean"], 100 * real["std"], fmt="s", color="#aaaaaa", ms=4, lw=1,
        label="coded real images in as many bytes" if first else None,
    )  # fmt: skip
    bars.lines[0].set_gid(name)


def _finish(
    panel: Any,
    student: str,
    result: Mapping[str, Any],
    looks: tuple[Mapping[str, str], Mapping[str, str]],
) -> None:
    """All real images as a line, the names of colours and marks, and the axes."""
    colours, marks = looks
    for stats in result["controls"][WHOLE].get(student, {}).values():
        panel.axhline(100 * stats["mean"], ls=":", lw=1, color="#444444", label="all real images")
    for name, colour in colours.items():
        panel.plot([], [], "o", color=colour, ms=5, label=name)
    for name, mark in marks.items():
        panel.plot([], [], mark, color=_GREY, ms=5, label=f"{name} labels")
    panel.set(
        xscale="log", title=student, xlabel="bytes of everything (log scale)",
        ylabel="test accuracy, %",
    )  # fmt: skip
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
