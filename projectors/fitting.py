"""Fit a projector to a teacher's soft labels on real images."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from projectors.errors import DivergedError, ProjectorError
from projectors.projector import Projector

LOSSES = ("mse", "kl")


@dataclass(frozen=True)
class FitSettings:
    """How a projector is fitted.

    Attributes:
        steps: number of optimiser steps.
        batch_size: images per step.
        lr: peak learning rate of AdamW; it falls to 0 along a cosine.
        weight_decay: of AdamW.
        ce_weight: weight of the cross-entropy with the hard labels.
        loss: "mse", the mean squared difference of logits; or "kl", the Kullback-Leibler
            divergence of probabilities at `temperature`, times its square.
        temperature: divides both logits in "kl"; > 0.
    """

    steps: int = 1000
    batch_size: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.01
    ce_weight: float = 0.1
    loss: str = "mse"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ProjectorError(f"loss is {self.loss!r}; write one of {', '.join(LOSSES)}")
        for name in ("steps", "batch_size", "lr", "temperature"):
            if not getattr(self, name) > 0:
                raise ProjectorError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.ce_weight < 0 or self.weight_decay < 0:
            raise ProjectorError(
                f"ce_weight is {self.ce_weight} and weight_decay {self.weight_decay}; "
                "neither may be below 0"
            )


@dataclass(frozen=True)
class FitStep:
    """One step of a fit: its index from 0, the loss before it, and its learning rate."""

    index: int
    loss: float
    lr: float


def fit_projector(
    projector: Projector,
    images: Tensor,
    teacher: Callable[[Tensor], Tensor],
    hard: Tensor,
    *,
    settings: FitSettings,
    view: Callable[[Tensor, Generator], Tensor] | None = None,
    generator: Generator,
) -> Iterator[FitStep]:
    """Fit adapters and head, one step per item; the projector is changed in place.

    The loss is that of `settings` plus ce_weight * cross-entropy with the hard labels. The
    teacher labels the very view that the projector sees.

    Args:
        projector: on the device of the images.
        images: [n, c, h, w] real images, in the projector's input space.
        teacher: images [b, c, h, w] -> logits [b, k]; called without gradients.
        hard: [n] class indices.
        settings: the optimiser's numbers.
        view: images and a generator -> augmented images; None for the images as they are.
        generator: a CPU generator for batches and views; the same one gives the same fit.

    Yields:
        A step after it has been taken.

    Raises:
        ProjectorError: if nothing can be fitted, or shapes do not agree.
        DivergedError: if the loss is no longer finite.

    Source: HeLlO, whose loss is "mse" with ce_weight * cross-entropy (its weight is not
    published).
    """
    parameters = [p for p in projector.parameters() if p.requires_grad]
    _check_data(projector, images, hard, parameters)
    optimiser = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    batches = _batches(len(images), settings.batch_size, generator)
    for index in range(settings.steps):
        lr = settings.lr * 0.5 * (1.0 + math.cos(math.pi * index / settings.steps))
        for group in optimiser.param_groups:
            group["lr"] = lr
        batch = next(batches).to(images.device)
        seen = images[batch] if view is None else view(images[batch], generator)
        with torch.no_grad():
            wanted = teacher(seen)
        loss = projector_loss(projector.logits(seen), wanted, hard[batch], settings)
        if not math.isfinite(value := loss.item()):
            raise DivergedError(
                f"the loss became {value} at step {index}; lower lr (now {settings.lr})", index
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        yield FitStep(index, value, lr)


def projector_loss(logits: Tensor, wanted: Tensor, hard: Tensor, settings: FitSettings) -> Tensor:
    """Distance between logits [n, k] and the teacher's, plus the weighted cross-entropy.

    Args:
        logits: [n, k] the projector's.
        wanted: [n, k] the teacher's.
        hard: [n] class indices.
        settings: which distance, and the weight.

    Returns:
        A scalar, mean over the batch.

    Raises:
        ProjectorError: if the teacher knows another number of classes.
    """
    if wanted.shape != logits.shape:
        raise ProjectorError(
            f"the teacher gives logits {tuple(wanted.shape)}, but the projector "
            f"{tuple(logits.shape)}; use a teacher of the same classes"
        )
    if settings.loss == "mse":
        distance = functional.mse_loss(logits, wanted)
    else:
        ours = (logits / settings.temperature).log_softmax(dim=-1)
        theirs = (wanted / settings.temperature).log_softmax(dim=-1)
        distance = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        distance = distance * settings.temperature**2
    return distance + settings.ce_weight * functional.cross_entropy(logits, hard)


def _check_data(
    projector: Projector, images: Tensor, hard: Tensor, parameters: list[torch.nn.Parameter]
) -> None:
    if not parameters:
        raise ProjectorError(
            "the projector has no adapter and no trained head, so there is nothing to fit; "
            "raise the rank or set trained='all'"
        )
    num_classes = len(projector.classes)
    if len(images) == 0 or hard.shape != images.shape[:1]:
        raise ProjectorError(
            f"got {len(images)} images and hard labels {tuple(hard.shape)}; give one per image"
        )
    if int(hard.min()) < 0 or int(hard.max()) >= num_classes:
        raise ProjectorError(
            f"hard labels run from {int(hard.min())} to {int(hard.max())}, but the projector has "
            f"{num_classes} classes; give indices below that"
        )


def _batches(num_images: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Shuffled passes over all images, for ever; each pass drops its last, smaller batch."""
    size = min(batch_size, num_images)
    while True:
        order = torch.randperm(num_images, generator=generator)
        for start in range(0, num_images - size + 1, size):
            yield order[start : start + size]
