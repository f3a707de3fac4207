"""Statistics of the inputs of BatchNorm layers: of real images, and of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synth.committee.vote import batch_norms
from synth.images import Images


@dataclass(frozen=True)
class NormStatistics:
    """Mean and variance of each channel of a BatchNorm layer's input, [c] or [k, c] by class."""

    mean: Tensor
    variance: Tensor

    def of_class(self, label: int) -> NormStatistics:
        """The statistics [c] of one class, where there are some for each class."""
        return NormStatistics(self.mean[label], self.variance[label])


@dataclass(frozen=True)
class LayerInput:
    """The input of a BatchNorm layer: the layer's index, and the features [n, c, ...]."""

    layer: int
    features: Tensor


@contextmanager
def watch_batch_norms(network: nn.Module) -> Iterator[list[LayerInput]]:
    """Record the input of each BatchNorm layer while the block runs.

    Yields:
        A list to which every call of a layer appends; clear it between two batches.
    """
    seen: list[LayerInput] = []

    def watch(index: int, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return layer.register_forward_pre_hook(
            lambda module, inputs: seen.append(LayerInput(index, inputs[0]))
        )

    handles = [watch(index, layer) for index, layer in enumerate(batch_norms(network))]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def running_statistics(network: nn.Module) -> list[NormStatistics]:
    """The running statistics of each BatchNorm layer: those of the images it was trained on.

    Raises:
        ValueError: if the network has no BatchNorm layer, or one that keeps no statistics.
    """
    statistics = []
    for layer in _require_batch_norms(network):
        if layer.running_mean is None or layer.running_var is None:
            raise ValueError(
                "a BatchNorm layer keeps no running statistics, which recovery compares with; "
                "use layers with track_running_stats=True, or set the weight of the statistics to 0"
            )
        statistics.append(NormStatistics(layer.running_mean.detach(), layer.running_var.detach()))
    return statistics


@torch.no_grad()
def class_statistics(
    network: nn.Module, images: Images, labels: Tensor, classes: int, batch_size: int = 500
) -> list[NormStatistics]:
    """The statistics of each BatchNorm layer's input, for each class separately.

    One pass over the images in evaluation mode; means and biased variances are exact (summed in
    float64), not moving averages. Source: the class-wise statistics of LPLD (Xiao and He 2024).

    Args:
        network: with BatchNorm layers; its running statistics are not read.
        images: [m, c, h, w], real.
        labels: [m] classes.
        classes: k.
        batch_size: images in one forward pass.

    Returns:
        One entry per layer, [k, c] each.

    Raises:
        ValueError: if the network has no BatchNorm layer, or a class has no image.
    """
    layers = _require_batch_norms(network)
    network.eval()
    sums = [torch.zeros(3, classes, layer.num_features, dtype=torch.float64) for layer in layers]
    for label in range(classes):
        members = torch.nonzero(labels == label).flatten()
        if not len(members):
            raise ValueError(f"class {label} has no image to take statistics of; add images")
        for index in members.split(batch_size):
            with watch_batch_norms(network) as seen:
                network(images[index])
            for entry in seen:
                sums[entry.layer][:, label] += _moments(entry.features)
    statistics = []
    for count, total, square in sums:
        mean = total / count.clamp(min=1)
        variance = (square / count.clamp(min=1) - mean.square()).clamp(min=0)
        moments = (value.float().to(images.device) for value in (mean, variance))
        statistics.append(NormStatistics(*moments))
    return statistics


def _moments(features: Tensor) -> Tensor:
    """Count, sum and sum of squares of each channel, [3, c] float64 on the CPU."""
    flat = features.transpose(0, 1).flatten(1).double()
    count = torch.full((len(flat),), float(flat.shape[1]), device=flat.device).double()
    return torch.stack([count, flat.sum(dim=1), flat.square().sum(dim=1)]).cpu()


def _require_batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    layers = batch_norms(network)
    if not layers:
        raise ValueError(
            "a member has no BatchNorm layer, whose statistics recovery compares with; choose a "
            "network with norm=batch, or set the weight of the statistics to 0"
        )
    return layers


def statistics_distance(
    seen: Sequence[LayerInput], targets: Sequence[NormStatistics], first_bn: float
) -> Tensor:
    """How far a batch's statistics lie from `targets`, scalar.

    Sum over layers of s (|var - var'| + |mean - mean'|) in the Euclidean norm over channels, with
    biased variances over the batch and its pixels; s is `first_bn` in the first layer and 1 in all
    others. Source: SRe2L (Yin et al. 2023), with the first layer's multiplier of its code.

    Args:
        seen: from `watch_batch_norms`, of one forward pass.
        targets: one entry per BatchNorm layer of the network.
        first_bn: multiplier of the first layer.
    """
    total = torch.zeros((), device=seen[0].features.device if seen else None)
    for entry in seen:
        target = targets[entry.layer]
        over = [axis for axis in range(entry.features.ndim) if axis != 1]
        # Features in bfloat16 have too few bits for a mean over many pixels.
        wide = torch.promote_types(entry.features.dtype, torch.float32)
        variance, mean = torch.var_mean(entry.features.to(wide), dim=over, correction=0)
        distance = (variance - target.variance).norm() + (mean - target.mean).norm()
        total = total + (first_bn if entry.layer == 0 else 1.0) * distance
    return total
