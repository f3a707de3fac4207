"""Accuracy over classes, where the test classes are uneven."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from distill.evaluation.confusion import Grade
from distill.evaluation.jobs import STUDENTS, StudentJob


def add_balanced(
    result: dict[str, Any], graded: Iterable[tuple[StudentJob, Grade]], labels: Tensor
) -> None:
    """Add balanced accuracies to the statistics of students and controls, and what they are.

    Args:
        result: of an evaluation, with its protocol; changed. Even classes change nothing.
        graded: its jobs.
        labels: [n] int64 true classes of the test images.
    """
    runs: dict[tuple[str, str, str], list[float]] = {}
    for job, found in graded:
        if found.balanced is not None and job.views and not job.trial:
            runs.setdefault((job.group, job.student, job.labels), []).append(found.balanced)
    if not runs:
        return
    for (group, student, source), values in runs.items():
        groups = result if group == STUDENTS else result["controls"]
        groups[group][student][source]["balanced"] = sum(values) / len(values)
    counts = torch.bincount(labels)
    counts = counts[counts > 0]
    result["protocol"]["balanced"] = (
        f"the mean over classes of each one's accuracy: test classes have {int(counts.min())} to "
        f"{int(counts.max())} images, and always naming the largest has an accuracy of "
        f"{int(counts.max()) / len(labels):.3f}"
    )
