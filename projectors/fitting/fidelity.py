"""How closely a projector reproduces its teacher's soft labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from projectors.errors import ProjectorError
from projectors.fitting.loop import Images
from projectors.model.projector import Projector


@dataclass(frozen=True)
class Fidelity:
    """Means over a set of images.

    Attributes:
        kl: Kullback-Leibler divergence from the teacher to the projector, in nats; 0 is exact.
        agreement: fraction of images on which both have the same top-1 class.
        accuracy: fraction of images whose hard label is the projector's top-1 class.
    """

    kl: float
    agreement: float
    accuracy: float


def measure_fidelity(
    projector: Projector,
    images: Images,
    teacher: Tensor,
    hard: Tensor,
    *,
    batch_size: int = 256,
) -> Fidelity:
    """Compare a projector with its teacher.

    Args:
        projector: on the device of the images.
        images: [n, c, h, w] in the projector's input space.
        teacher: [n, k] the teacher's probabilities of these images.
        hard: [n] class indices.
        batch_size: images at a time.

    Raises:
        ProjectorError: if shapes do not agree, or a row of `teacher` is not a distribution.
    """
    num_images, num_classes = len(images), len(projector.classes)
    if num_images == 0 or teacher.shape != (num_images, num_classes):
        raise ProjectorError(
            f"got {num_images} images and teacher probabilities {tuple(teacher.shape)}; "
            f"give [n, {num_classes}] with one row per image"
        )
    if bool((teacher < 0).any()) or bool(((teacher.sum(dim=-1) - 1.0).abs() > 1e-2).any()):
        raise ProjectorError("teacher rows are not probabilities; apply softmax to logits first")
    total = torch.zeros(3, device=images.device, dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, num_images, batch_size):
            part = slice(start, start + batch_size)
            total += _sums(projector.logits(images[part]), teacher[part], hard[part])
    kl, agreement, accuracy = (total / num_images).tolist()
    return Fidelity(kl, agreement, accuracy)


def _sums(logits: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    """Sums over a batch: the divergence, the agreements, the correct top-1 classes; [3]."""
    theirs = torch.xlogy(teacher, teacher)
    kl = (theirs - teacher * logits.log_softmax(dim=-1)).sum()
    first = logits.argmax(dim=-1)
    agreement = (first == teacher.argmax(dim=-1)).sum()
    return torch.stack([kl.double(), agreement.double(), (first == hard).sum().double()])
