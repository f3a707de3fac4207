"""Asking a trained network: its outputs, classes and accuracy on many images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from synth.images import Images

# Largest inference batch: images, and float32 values (4 MB on a CPU, 128 MB on a GPU).
_MAX_IMAGES = 1000

_VALUES_ON_CPU, _VALUES_ON_GPU = 1 << 20, 1 << 25


@torch.no_grad()
def predict(
    network: Callable[[Tensor], Tensor], images: Images, batch_size: int | None = None
) -> Tensor:
    """Outputs [n, k] on `images` [n, c, h, w], `batch_size` at once, without gradients."""
    return torch.cat(
        [network(part) for part in images.split(batch_size or _inference_batch(images))]
    )


@torch.no_grad()
def predict_classes(network: Callable[[Tensor], Tensor], images: Images) -> Tensor:
    """As `predict`, but the classes [n] of the largest outputs alone."""
    return torch.cat(
        [network(part).argmax(dim=1) for part in images.split(_inference_batch(images))]
    )


def _inference_batch(images: Images) -> int:
    """Images in one forward pass without gradients: fewer of large ones."""
    values = _VALUES_ON_CPU if images.device.type == "cpu" else _VALUES_ON_GPU
    return max(1, min(_MAX_IMAGES, values // images.shape[1:].numel()))


def accuracy(network: nn.Module, images: Images, labels: Tensor) -> float:
    """Top-1 accuracy of `network` in evaluation mode, a fraction in [0, 1]."""
    network.eval()
    return float((predict_classes(network, images) == labels).float().mean())
