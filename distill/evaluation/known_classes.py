"""What a student sees that knows the first classes alone, in the order of their numbers."""

from __future__ import annotations

from torch import Tensor

from distill.data import select_images
from distill.evaluation.jobs import StudentJob
from synth.images import Images


def class_count(job: StudentJob, classes: int) -> int:
    """The classes that a job's student tells apart, of `classes`."""
    return classes if job.classes is None else job.classes


def known_images(job: StudentJob, images: Images, labels: Tensor) -> tuple[Images, Tensor]:
    """The images [m, c, h, w] and labels [m] of a job's classes.

    Args:
        job: whose classes.
        images: [n, c, h, w].
        labels: [n] int64 classes.
    """
    if job.classes is None:
        return images, labels
    kept = (labels < job.classes).nonzero().flatten()
    return select_images(images, kept.cpu()), labels[kept]


def known_logits(job: StudentJob, logits: Tensor, labels: Tensor) -> Tensor:
    """Label logits [m, j] of the images of a job's j classes, without what they say of others.

    Args:
        job: whose classes.
        logits: [n, k].
        labels: [n] int64 classes of the images.
    """
    return logits if job.classes is None else logits[labels < job.classes, : job.classes]
