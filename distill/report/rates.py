"""Bytes of labels against accuracy: the points, from a sweep or from the run itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill.report.scales import finite, percent, size_text
from distill.report.verdict import read_score, source_name

_RANDOM = "random"


@dataclass(frozen=True)
class RatePoint:
    """The accuracy of one student with one way of labelling.

    Attributes:
        student: network spec.
        name: label source or codec, as a reader calls it.
        control: whether the images are random real ones instead of the synthetic set.
        bytes: of labels, and of views where labels depend on them.
        mean: accuracy over the seeds, a fraction.
        std: over the seeds.
        seeds: how many.
        external: bytes that are downloaded from elsewhere.
        dominated: whether another point of its student and images takes no more bytes and is no
            less accurate, and better in one of the two.
    """

    student: str
    name: str
    control: bool
    bytes: float
    mean: float
    std: float
    seeds: int
    external: float
    dominated: bool = False

    @property
    def text(self) -> str:
        """Everything about the point, for a tooltip and screen readers."""
        what = f"{self.name}, on random real images" if self.control else self.name
        spread = f" ± {percent(self.std)}" if self.seeds > 1 else ""
        seeds = f"{self.seeds} seed" + ("" if self.seeds == 1 else "s")
        more = f", and {size_text(self.external)} from elsewhere" if self.external else ""
        return (
            f"{what}: {percent(self.mean)}{spread} % over {seeds}, "
            f"{size_text(self.bytes)} of labels{more}"
        )


def rate_points(
    summary: Mapping[str, Any], sweep: Sequence[Mapping[str, Any]]
) -> dict[str, list[RatePoint]]:
    """The points of each student: the sweep's where there is one, else the run's label sources.

    Args:
        summary: `students`, `controls` and `bytes` of an evaluation.
        sweep: rows of a sweep's table, see `distill sweep`.
    """
    points = _of_sweep(sweep) if sweep else _of_summary(summary)
    students = dict.fromkeys(point.student for point in points)
    grouped = {name: [p for p in points if p.student == name] for name in students}
    return {name: ordered(own) for name, own in grouped.items() if len(own) > 1}


def ordered(points: Sequence[RatePoint]) -> list[RatePoint]:
    """The points of one student by their bytes, those that others dominate marked."""
    return [_marked(point, points) for point in sorted(points, key=lambda p: (p.bytes, p.mean))]


def _of_sweep(rows: Sequence[Mapping[str, Any]]) -> list[RatePoint]:
    points = []
    for row in rows:
        score = read_score(str(row.get("student")), str(row.get("codec")), row)
        size = finite(row.get("bytes"))
        if score is None or size is None:
            continue
        control = row.get("images") == _RANDOM
        external = finite(row.get("external")) or 0.0
        points.append(_point(score.student, score.source, control, size, external, row))
    return points


def _of_summary(summary: Mapping[str, Any]) -> list[RatePoint]:
    bytes_ = summary.get("bytes") or {}
    labels = bytes_.get("labels")
    groups = (
        (False, summary.get("students") or {}),
        (True, (summary.get("controls") or {}).get(_RANDOM) or {}),
    )
    points = []
    for control, students in groups:
        for student, entries in students.items():
            for source, entry in entries.items():
                stored = labels.get(source) if isinstance(labels, Mapping) else None
                online = source == "projector"
                size = finite(bytes_.get("projector") if online else stored)
                if size is None or read_score(student, source, entry) is None:
                    continue
                external = (finite(bytes_.get("external")) or 0.0) if online else 0.0
                points.append(_point(student, source, control, size, external, entry))
    return points


def _point(
    student: str,
    source: str,
    control: bool,
    size: float,
    external: float,
    entry: Mapping[str, Any],
) -> RatePoint:
    mean, std = finite(entry.get("mean")) or 0.0, finite(entry.get("std")) or 0.0
    seeds = len(entry.get("runs") or ()) or 1
    name = source_name(source)
    return RatePoint(student, name, control, size, mean, std, seeds, external)


def _marked(point: RatePoint, points: Sequence[RatePoint]) -> RatePoint:
    rivals = [other for other in points if other.control == point.control]
    dominated = any(
        other.bytes <= point.bytes
        and other.mean >= point.mean
        and (other.bytes < point.bytes or other.mean > point.mean)
        for other in rivals
    )
    return replace(point, dominated=dominated)
