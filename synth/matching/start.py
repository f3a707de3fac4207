"""Initial images and soft labels of a synthetic set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from synth.losses import HARD_LOGIT, hard_logits


def class_labels(classes: int, ipc: int) -> Tensor:
    """Hard labels [classes * ipc]: `ipc` of class 0, then of class 1, and so on."""
    return torch.arange(classes).repeat_interleave(ipc)


def draw_real(labels: Tensor, classes: int, ipc: int, generator: Generator) -> Tensor:
    """Indices [classes * ipc] of real images drawn without replacement, in class order.

    Args:
        labels: [m] classes of the real images.
        classes: k.
        ipc: images per class, at least 1.
        generator: random source.

    Raises:
        ValueError: if a class has fewer images than `ipc`.
    """
    if ipc < 1:
        raise ValueError(f"ipc is {ipc}; it must be at least 1")
    return draw_counts(labels, [ipc] * classes, generator)


def draw_counts(labels: Tensor, counts: Sequence[int], generator: Generator) -> Tensor:
    """Indices of real images drawn without replacement, in class order, so many of each class.

    Args:
        labels: [m] classes of the real images.
        counts: images of each class; 0 for none.
        generator: random source; equal counts draw the same as `draw_real`.

    Raises:
        ValueError: if a class has too few images.
    """
    chosen = []
    for label, count in enumerate(counts):
        members = torch.nonzero(labels == label).flatten()
        if len(members) < count:
            raise ValueError(
                f"class {label} has {len(members)} training images, but ipc is {count}; lower ipc "
                "or add images"
            )
        order = torch.randperm(len(members), generator=generator)
        chosen.append(members[order[:count]])
    return torch.cat(chosen)


def draw_noise(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal pixels, in the normalised space of the set."""
    return torch.randn(shape, generator=generator)


def draw_uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Pixels uniform in [0, 1], before normalisation."""
    return torch.rand(shape, generator=generator)


def starting_labels(labels: Tensor, classes: int, lead: float) -> Tensor:
    """Label logits [n, k] that put the class of each image `lead` above the others.

    A lead of 4 gives the class 0.86 of the probability among ten: soft enough to be learned from
    the first step, where a one-hot label would have no gradient.
    """
    return hard_logits(labels, classes) * (lead / HARD_LOGIT)


def expert_label_logits(logits: Tensor, labels: Tensor, lead: float) -> Tensor:
    """Mean label logits over the experts that are correct; source: DATM (Guo et al. 2024).

    Args:
        logits: [e, n, k] of e experts.
        labels: [n] hard labels.
        lead: where no expert is correct, the label of `starting_labels` with this lead.

    Returns:
        Label logits [n, k].
    """
    correct = (logits.argmax(dim=2) == labels).to(logits.dtype).unsqueeze(2)
    mean = (logits * correct).sum(dim=0) / correct.sum(dim=0).clamp(min=1)
    fallback = starting_labels(labels, logits.shape[2], lead)
    return torch.where(correct.sum(dim=0) > 0, mean, fallback)


def correctly_predicted(predicted: Tensor, labels: Tensor, classes: int, ipc: int) -> Tensor:
    """Which real images experts classify correctly, as candidates to start from (DATM).

    A later expert counts only for the classes in which those before it are correct on fewer than
    `ipc` images.

    Args:
        predicted: [e, m] classes that e experts predict.
        labels: [m] hard labels.
        classes: k.
        ipc: images needed per class.

    Returns:
        Mask [m].

    Raises:
        ValueError: if all experts together are correct on fewer than `ipc` images of a class.
    """
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in range(classes):
        members = labels == label
        for expert in predicted:
            chosen |= members & (expert == labels)
            if int((chosen & members).sum()) >= ipc:
                break
        count = int((chosen & members).sum())
        if count < ipc:
            raise ValueError(
                f"the experts are right on {count} training images of class {label}, but {ipc} "
                "are needed; train them longer, or set match.init = real"
            )
    return chosen
