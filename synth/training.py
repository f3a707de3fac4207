"""Training of any network on batches with soft labels: experts, teachers and students."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from synth.augment import Augmentation
from synth.losses import soft_cross_entropy
from synth.sharpness import Sharpness, sharpness_aware_backward


@dataclass(frozen=True)
class Batch:
    """Images [b, c, h, w] as the network sees them, and label logits [b, k]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    Attributes:
        epochs: passes over the data.
        lr: peak learning rate.
        optimizer: "sgd" or "adamw".
        momentum: of SGD.
        weight_decay: decoupled for AdamW, L2 for SGD; never on biases and norms.
        schedule: "constant" or "cosine" (down to zero, one step per epoch).
        temperature: of the soft cross-entropy.
        sharpness: sharpness-aware gradients, at twice the cost; None for plain ones.
    """

    epochs: int
    lr: float
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    temperature: float = 1.0
    sharpness: Sharpness | None = None


@dataclass(frozen=True)
class Epoch:
    """One finished epoch of training: its number from 1, and its mean loss."""

    index: int
    loss: float


def train(
    network: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    settings: TrainSettings,
) -> Iterator[Epoch]:
    """Train `network` in place; yields after each epoch.

    Args:
        network: images -> logits.
        batches: epoch number (from 0) -> the batches of that epoch.
        settings: optimiser and schedule.

    Raises:
        FloatingPointError: if the loss of an epoch is not finite.
    """
    optimizer = _make_optimizer(network, settings)
    for epoch in range(settings.epochs):
        network.train()
        factor = 1.0
        if settings.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * factor
        total, count = torch.zeros(()), 0
        for batch in batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            loss = _backward(network, batch, settings)
            optimizer.step()
            # Summed on the device: reading it here would make the CPU wait at every step.
            total = total.to(loss.device) + loss * len(batch.images)
            count += len(batch.images)
        mean = float(total) / max(count, 1)
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"the training loss is {mean} in epoch {epoch + 1}; lower the learning rate "
                f"({settings.lr})"
            )
        yield Epoch(epoch + 1, mean)


def _backward(network: nn.Module, batch: Batch, settings: TrainSettings) -> Tensor:
    """Set the gradients of one batch; returns its loss, detached."""

    def loss() -> Tensor:
        return soft_cross_entropy(network(batch.images), batch.labels, settings.temperature)

    if settings.sharpness is not None:
        return sharpness_aware_backward(list(network.parameters()), loss, settings.sharpness)
    value = loss()
    value.backward()
    return value.detach()


def _make_optimizer(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    raise ValueError(f"optimizer is {settings.optimizer!r}; choose sgd or adamw")


def split_batches(count: int, batch_size: int) -> list[slice]:
    """Consecutive places in batches; a last batch of one joins the batch before it.

    BatchNorm cannot see a single image, and teacher and student must cut alike.
    """
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]


def shuffled_batches(
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    augmentation: Augmentation | None,
    generator: Generator,
) -> Iterator[Batch]:
    """One epoch over `images` [n, c, h, w] with label logits [n, k], shuffled and augmented."""
    order = torch.randperm(len(images), generator=generator)
    for places in split_batches(len(images), batch_size):
        index = order[places]
        batch = images[index.to(images.device)]
        if augmentation is not None:
            size = (images.shape[2], images.shape[3])
            batch = augmentation.sample(len(index), size, generator).apply(batch)
        yield Batch(batch, labels[index.to(labels.device)])


@torch.no_grad()
def predict(network: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 1000) -> Tensor:
    """Outputs [n, k] of `network` on `images` [n, c, h, w], without gradients, in its own mode."""
    return torch.cat([network(part) for part in images.split(batch_size)])


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy of `network` in evaluation mode, a fraction in [0, 1]."""
    network.eval()
    predicted = predict(network, images).argmax(dim=1)
    return float((predicted == labels).float().mean())
