"""Which students a sweep trains, and what their accuracies say of the codecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from distill.evaluation.jobs import RANDOM, statistics_of
from distill.recipes.specs import parse_codec

SYNTHETIC = "set"

HARD, FULL = "hard", "full-fp16"


@dataclass(frozen=True)
class SweepOptions:
    """What a sweep was asked to compare.

    Attributes:
        codecs: specs.
        controls: codecs that random real images are put under as well: "all" of them, or the
            "ends", full and hard labels.
    """

    codecs: Sequence[str]
    controls: Literal["all", "ends"] = "all"

    def __post_init__(self) -> None:
        """Refuse a codec that does not exist.

        Raises:
            RecipeError: for its name or its options.
        """
        for codec in self.codecs:
            if codec != HARD:
                parse_codec(codec)


@dataclass(frozen=True)
class SweepJob:
    """One student of a sweep.

    Attributes:
        images: "set" (the synthetic set) or "random" (random real images, as many).
        codec: spec, "full-fp16" for the votes as they are, or "hard" for the images' classes.
        student: network spec.
        seed: of the student, and of the random images.
    """

    images: str
    codec: str
    student: str
    seed: int

    @property
    def name(self) -> str:
        """A name that is the same in every sweep."""
        return f"{self.images}/{self.codec}/{self.student}/{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

    Attributes:
        accuracy: on the test split, a fraction.
        held_out: on the validation split, a fraction; choices are made by it.
        payload: bytes of the labels.
        views: bytes of what names the views.
        external: bytes that a receiver must fetch elsewhere.
        shipped: bytes of labels and views in a compressed archive.
        made: teacher passes that the labels cost their maker, in images.
        asked: network passes that they cost in the training of each student, in images.
    """

    accuracy: float
    held_out: float
    payload: int
    views: int
    external: int = 0
    shipped: int = 0
    made: int = 0
    asked: int = 0


@dataclass(frozen=True)
class Point:
    """A codec on the curve of one student and one kind of images.

    Attributes:
        images: as of `SweepJob`.
        codec: as of `SweepJob`.
        student: network spec.
        mean: accuracy over the seeds, a fraction.
        std: over the seeds, n - 1.
        runs: the accuracy of each seed.
        held_out: mean accuracy on the validation split.
        payload: bytes of the labels.
        views: bytes of what names the views.
        external: bytes to fetch elsewhere.
        shipped: bytes of payload and views in a compressed archive.
        made: teacher passes that the labels cost their maker, in images.
        asked: network passes that they cost in the training of each student, in images.
        bytes: payload and views.
        ratio: bytes of the full labels and views over `bytes`.
        dominated: whether another codec of the student takes no more bytes and is no less
            accurate, and better in one of the two.
    """

    images: str
    codec: str
    student: str
    mean: float
    std: float
    runs: list[float]
    held_out: float
    payload: int
    views: int
    external: int
    shipped: int
    made: int
    asked: int
    bytes: int
    ratio: float
    dominated: bool = False


def plan_sweep(
    options: SweepOptions, students: Sequence[str], seeds: int, *, labelled: bool
) -> list[SweepJob]:
    """All jobs: the codecs that were asked for, full and hard labels, and the controls.

    Args:
        options: codecs and controls.
        students: network specs.
        seeds: students of each kind.
        labelled: whether random real images can be labelled; with hard labels they always are.
    """
    codecs = list(
        dict.fromkeys([FULL, *(codec for codec in options.codecs if codec != HARD), HARD])
    )
    ends = [FULL, HARD] if labelled else [HARD]
    controls = codecs if labelled and options.controls == "all" else ends
    kinds = [(SYNTHETIC, codec) for codec in codecs] + [(RANDOM, codec) for codec in controls]
    return [
        SweepJob(images, codec, student, seed)
        for images, codec in kinds
        for student in students
        for seed in range(seeds)
    ]


def curve(jobs: Sequence[SweepJob], outcomes: Mapping[str, Outcome]) -> list[Point]:
    """The points of finished jobs, in the order of the jobs, dominated ones marked.

    Args:
        jobs: of one sweep.
        outcomes: outcome of every job by its name.
    """
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for job in jobs:
        groups.setdefault((job.images, job.codec, job.student), []).append(outcomes[job.name])
    full = max(
        (rows[0].payload + rows[0].views for key, rows in groups.items() if key[1] == FULL),
        default=0,
    )
    points = [_point(key, rows, full) for key, rows in groups.items()]
    return [replace(point, dominated=_dominated(point, points)) for point in points]


def as_rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Points as plain values."""
    return [asdict(point) for point in points]


def _point(key: tuple[str, str, str], rows: Sequence[Outcome], full: int) -> Point:
    images, codec, student = key
    stats = statistics_of([row.accuracy for row in rows])
    held_out = sum(row.held_out for row in rows) / len(rows)
    # Random images differ from seed to seed, and with them what an entropy coder makes of them.
    payload = max(row.payload for row in rows)
    views = max(row.views for row in rows)
    total = payload + views
    return Point(
        images,
        codec,
        student,
        stats["mean"],
        stats["std"],
        stats["runs"],
        held_out,
        payload,
        views,
        rows[0].external,
        max(row.shipped for row in rows),
        rows[0].made,
        rows[0].asked,
        total,
        full / total if total else 0.0,
    )


def _dominated(point: Point, points: Sequence[Point]) -> bool:
    kind = (point.images, point.student)
    return is_dominated(point, [rival for rival in points if (rival.images, rival.student) == kind])


class Rated(Protocol):
    """A point of a curve."""

    @property
    def bytes(self) -> int:
        """What it takes."""
        ...

    @property
    def mean(self) -> float:
        """Its accuracy, a fraction."""
        ...


def is_dominated(point: Rated, rivals: Sequence[Rated]) -> bool:
    """Whether a rival takes no more bytes and is no less accurate, and better in one of the two."""
    return any(
        other.bytes <= point.bytes
        and other.mean >= point.mean
        and (other.bytes < point.bytes or other.mean > point.mean)
        for other in rivals
    )
