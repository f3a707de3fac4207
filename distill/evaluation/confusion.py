"""Confusion matrices of students."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.data.notes import UNEVEN
from distill.evaluation.jobs import STUDENTS, StudentJob
from synth.images import Images
from synth.training.prediction import predict_classes

# A matrix grows with the square of the classes, and nobody reads one of hundreds.
MOST_CLASSES = 30

Matrix = list[list[int]]


@dataclass(frozen=True)
class Grade:
    """The test result of one student.

    Attributes:
        accuracy: top-1, a fraction in [0, 1].
        confusion: [k, k] images of each true class (row) by predicted class (column); None for
            more than `MOST_CLASSES` classes, and where it was not asked for.
        bytes: of its rounded weights; None where they are as they were trained.
        balanced: the mean accuracy over classes; None where the test classes are even.
    """

    accuracy: float
    confusion: Matrix | None = None
    bytes: int | None = None
    balanced: float | None = None


def grade(network: nn.Module, images: Images, labels: Tensor, classes: int) -> Grade:
    """Test a student in evaluation mode.

    Args:
        network: maps images to logits [m, classes].
        images: [m, c, h, w].
        labels: [m] int64 true classes.
        classes: how many there are.
    """
    network.eval()
    predicted = predict_classes(network, images)
    accuracy = float((predicted == labels).float().mean())
    balanced = balanced_accuracy(predicted, labels, classes)
    if classes > MOST_CLASSES:
        return Grade(accuracy, balanced=balanced)
    pairs = labels * classes + predicted
    counts = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    return Grade(accuracy, counts.tolist(), balanced=balanced)


def balanced_accuracy(predicted: Tensor, labels: Tensor, classes: int) -> float | None:
    """The mean over classes of the share of each that is right; None where they are even.

    Classes without an image do not count.

    Args:
        predicted: [n] int64.
        labels: [n] int64 true classes.
        classes: how many there are.
    """
    counts = torch.bincount(labels, minlength=classes)
    present = counts > 0
    if int(counts.max()) < UNEVEN * int(counts[present].min()):
        return None
    right = torch.bincount(labels[predicted == labels], minlength=classes)
    return float((right[present].double() / counts[present]).mean())


def sum_confusions(graded: Iterable[tuple[StudentJob, Grade]]) -> dict[str, dict[str, Matrix]]:
    """{student: {label source: matrix}}, summed over the seeds of students of the set."""
    sums: dict[str, dict[str, Matrix]] = {}
    for job, result in graded:
        if job.group != STUDENTS or result.confusion is None:
            continue
        by_label = sums.setdefault(job.student, {})
        before = by_label.get(job.labels)
        by_label[job.labels] = (
            result.confusion if before is None else _added(before, result.confusion)
        )
    return sums


def _added(a: Matrix, b: Matrix) -> Matrix:
    return [[x + y for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
