"""How closely a projector reproduces its teacher's soft labels."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from projectors.errors import ProjectorError
from projectors.fitting.loop import Images
from projectors.model.projector import Projector

# Means of classes need no more images, nor larger ones, than this.
_MOST_AVERAGED, _LARGEST_SIDE = 10_000, 32


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


def nearest_mean_agreement(
    images: Images, hard: Tensor, held: Images, teacher: Tensor, *, batch_size: int = 256
) -> float:
    """How often the nearest class mean of the pixels is the teacher's top class.

    A bound from below that takes no network: a projector that agrees with its teacher less often
    sees next to nothing in these images.

    Args:
        images: [n, c, h, w] that a projector is fitted on; of many, 10,000 are averaged.
        hard: [n] their class indices; a class without images is never the nearest.
        held: [m, c, h, w] held out of the fit.
        teacher: [m, k] the teacher's probabilities of these.
        batch_size: images at a time.

    Returns:
        A fraction of the held-out images, in [0, 1].

    Raises:
        ProjectorError: if lengths do not agree, or there are no images.
    """
    if not len(images) or not len(held) or len(images) != len(hard) or len(held) != len(teacher):
        raise ProjectorError(
            f"got {len(images)} images with {len(hard)} classes, and {len(held)} held-out images "
            f"with {len(teacher)} teacher rows; give one row per image, and at least one of each"
        )
    means = _class_means(images, hard, teacher.shape[1], batch_size)
    agreed = 0
    for start in range(0, len(held), batch_size):
        part = slice(start, start + batch_size)
        nearest = torch.cdist(_small(held[part]), means).nan_to_num(torch.inf).argmin(dim=1)
        agreed += int((nearest == teacher[part].argmax(dim=1)).sum())
    return agreed / len(held)


def _class_means(images: Images, hard: Tensor, classes: int, batch_size: int) -> Tensor:
    """The mean images [k, p] of the classes; NaN where a class has none."""
    chosen = torch.arange(0, len(images), max(1, len(images) // _MOST_AVERAGED))
    total = torch.zeros(0)
    for index in chosen.split(batch_size):
        seen = _small(images[index])
        if not len(total):
            total = torch.zeros(classes, seen.shape[1], device=seen.device)
        total.index_add_(0, hard[index.to(hard.device)].to(seen.device), seen)
    counts = hard[chosen.to(hard.device)].bincount(minlength=classes).to(total.device)
    return total / counts.unsqueeze(1)


def _small(images: Tensor) -> Tensor:
    """The pixels [n, p] of images, of large ones after they were brought to 32 a side."""
    height, width = (min(side, _LARGEST_SIDE) for side in images.shape[2:])
    return functional.adaptive_avg_pool2d(images, (height, width)).flatten(1)


def _sums(logits: Tensor, teacher: Tensor, hard: Tensor) -> Tensor:
    """Sums over a batch: the divergence, the agreements, the correct top-1 classes; [3]."""
    theirs = torch.xlogy(teacher, teacher)
    kl = (theirs - teacher * logits.log_softmax(dim=-1)).sum()
    first = logits.argmax(dim=-1)
    agreement = (first == teacher.argmax(dim=-1)).sum()
    return torch.stack([kl.double(), agreement.double(), (first == hard).sum().double()])
