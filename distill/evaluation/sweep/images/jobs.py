"""Which students a sweep over ways to keep images trains, and the curve that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from distill.evaluation.jobs import statistics_of
from distill.evaluation.sweep.images.options import ImageSweepOptions
from distill.evaluation.sweep.jobs import is_dominated

# The images of the set as it keeps them, without another coding.
STORED = "stored"


@dataclass(frozen=True)
class ImageJob:
    """One student on a part of the set under a coding.

    Attributes:
        coding: spec, or "stored" for the whole set as it is.
        ipc: stored images of each class, the first ones.
        labels: as of `ImageSweepOptions`.
        student: network spec.
        seed: of the student.
    """

    coding: str
    ipc: int
    labels: str
    student: str
    seed: int

    @property
    def name(self) -> str:
        """A name that is the same in every sweep."""
        return f"set/{self.coding}/{self.ipc}/{self.labels}/{self.student}/{self.seed}"


@dataclass(frozen=True)
class ImageOutcome:
    """The result of a job.

    Attributes:
        accuracy: on the test split, a fraction.
        held_out: on the validation split, a fraction.
        images: bytes of the images.
        labels: bytes of the labels, with what names their views.
        bytes: of everything that a receiver needs, see `distill.sets.cost.count_bytes`.
        external: bytes that a receiver must fetch elsewhere.
        error: mean squared error of the pixels that students see, in [0, 1], by the coding.
    """

    accuracy: float
    held_out: float
    images: int
    labels: int
    bytes: int
    external: int
    error: float


@dataclass(frozen=True)
class ImagePoint:
    """A way to keep images and labels on the curve of one student.

    Attributes:
        coding: as of `ImageJob`.
        ipc: stored images of each class.
        labels: as of `ImageSweepOptions`.
        student: network spec.
        mean: accuracy over the seeds, a fraction.
        std: over the seeds, n - 1.
        runs: the accuracy of each seed.
        interval: of the mean with 95 % confidence, or None for one seed.
        held_out: mean accuracy on the validation split.
        image_bytes: of the images.
        label_bytes: of the labels, with what names their views.
        bytes: of everything that a receiver needs.
        external: bytes to fetch elsewhere.
        error: mean squared error of the pixels that students see, in [0, 1].
        dominated: whether another point of the student takes no more bytes and is no less
            accurate, and better in one of the two; the others are the Pareto front.
        gain: `mean` less that of the best coded real images in no more bytes; None where those in
            as many were not asked for.
    """

    coding: str
    ipc: int
    labels: str
    student: str
    mean: float
    std: float
    runs: list[float]
    interval: list[float] | None
    held_out: float
    image_bytes: int
    label_bytes: int
    bytes: int
    external: int
    error: float
    dominated: bool = False
    gain: float | None = None


def plan_image_sweep(
    options: ImageSweepOptions, most: int, students: Sequence[str], seeds: int
) -> list[ImageJob]:
    """Every coding with every number of images and kind of labels, and the set as it is.

    Args:
        options: completed for the set.
        most: stored images of the largest class, which is how many the whole set has of each.
        students: network specs.
        seeds: students of each kind.
    """
    kept = [(STORED, most)]
    kept += [(coding, ipc) for ipc in options.images_per_class for coding in options.codings]
    return [
        ImageJob(coding, ipc, labels, student, seed)
        for coding, ipc in kept
        for labels in options.labels
        for student in students
        for seed in range(seeds)
    ]


def image_curve(jobs: Sequence[ImageJob], outcomes: Mapping[str, ImageOutcome]) -> list[ImagePoint]:
    """The points of finished jobs, of each student from the fewest bytes to the most.

    Args:
        jobs: of one sweep.
        outcomes: outcome of every job by its name.
    """
    groups: dict[tuple[str, int, str, str], list[ImageOutcome]] = {}
    for job in jobs:
        kind = (job.coding, job.ipc, job.labels, job.student)
        groups.setdefault(kind, []).append(outcomes[job.name])
    points = [_point(kind, rows) for kind, rows in groups.items()]
    students = {point.student: place for place, point in reversed(list(enumerate(points)))}
    return [
        replace(point, dominated=is_dominated(point, _of_student(points, point.student)))
        for point in sorted(points, key=lambda p: (students[p.student], p.bytes, -p.mean))
    ]


def budgets(points: Sequence[ImagePoint], controls: str) -> list[int]:
    """The bytes at which coded real images are trained on, from the fewest."""
    found = sorted({point.bytes for point in points})
    return found if controls == "all" else sorted({found[0], found[-1]})


def with_gains(
    points: Sequence[ImagePoint], coded: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> list[ImagePoint]:
    """The points with what they gain over coded real images.

    Args:
        points: of one sweep.
        coded: accuracy of coded real images by student and bytes, see `controls.coded_controls`.
    """
    found = []
    for point in points:
        real = best_control(coded[point.student], point.bytes)
        found.append(replace(point, gain=None if real is None else point.mean - real["mean"]))
    return found


def best_control(coded: Mapping[str, Mapping[str, Any]], size: int) -> Mapping[str, Any] | None:
    """The most accurate coded real images in at most `size` bytes; of equals those of the fewest.

    A way that a search chose for more bytes may be worse than one that it chose for fewer.

    Args:
        coded: accuracies of one student by bytes.
        size: bytes of a point; None is returned where no control was trained for them.
    """
    if str(size) not in coded:
        return None
    within = sorted(int(own) for own in coded if int(own) <= size)
    return max((coded[str(own)] for own in within), key=lambda stats: float(stats["mean"]))


def as_rows(points: Sequence[ImagePoint]) -> list[dict[str, Any]]:
    """Points as plain values."""
    return [asdict(point) for point in points]


def _of_student(points: Sequence[ImagePoint], student: str) -> list[ImagePoint]:
    return [point for point in points if point.student == student]


def _point(kind: tuple[str, int, str, str], rows: Sequence[ImageOutcome]) -> ImagePoint:
    stats = statistics_of([row.accuracy for row in rows])
    held_out = sum(row.held_out for row in rows) / len(rows)
    # The seeds differ in their students alone.
    cost = rows[0]
    return ImagePoint(
        *kind,
        stats["mean"],
        stats["std"],
        stats["runs"],
        stats["interval"],
        held_out,
        cost.images,
        cost.labels,
        cost.bytes,
        cost.external,
        cost.error,
    )
