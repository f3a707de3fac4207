"""How far real images lie from a teacher's BatchNorm statistics, and groups of them by that."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synth.images import Images
from synth.recovery.statistics import running_statistics, watch_batch_norms

# Added to variances, whose logarithms are compared.
_EPS = 1e-6


@torch.no_grad()
def precision_scores(network: nn.Module, images: Images, batch_size: int = 500) -> Tensor:
    """How far the statistics of each image lie from a network's running ones, [m] on the CPU.

    The mean over BatchNorm layers of (|mean - mean'| + |log(var / var')|) / sqrt(c), with the mean
    and the variance of a layer's input over the pixels of one image. Larger for more difficult
    images. Source: the global precision score of PSM (2026), after the description in a summary.

    Args:
        network: with BatchNorm layers that keep statistics; put into evaluation mode.
        images: [m, c, h, w], real.
        batch_size: images in one forward pass.

    Raises:
        ValueError: as `running_statistics`.
    """
    targets = running_statistics(network)
    network.eval()
    scores = []
    for batch in images.split(batch_size):
        with watch_batch_norms(network) as seen:
            network(batch)
        total = torch.zeros(len(batch), device=batch.device)
        for entry in seen:
            target, flat = targets[entry.layer], entry.features.flatten(2)
            variance, mean = torch.var_mean(flat, dim=2, correction=0)
            ratio = ((variance + _EPS) / (target.variance + _EPS)).log()
            distance = (mean - target.mean).norm(dim=1) + ratio.norm(dim=1)
            total += distance / mean.shape[1] ** 0.5
        scores.append((total / max(len(seen), 1)).cpu())
    return torch.cat(scores)


def difficulty_groups(
    scores: Sequence[Tensor], labels: Tensor, classes: int, groups: int
) -> Tensor:
    """The group [m] of each image, int64 from 0 for the easiest: of a class in equal parts.

    Images are ranked within their class by each teacher, and by the mean of these ranks. Source:
    PSM, as `precision_scores`.

    Args:
        scores: [m] of each teacher, larger for more difficult.
        labels: [m] classes, on the CPU.
        classes: k.
        groups: parts of a class; one is a larger than another by one image at most.

    Raises:
        ValueError: if a class has fewer images than groups.
    """
    found = torch.zeros(len(labels), dtype=torch.int64)
    for label in range(classes):
        members = torch.nonzero(labels == label).flatten()
        if len(members) < groups:
            raise ValueError(
                f"class {label} has {len(members)} images, but {groups} groups are needed; lower "
                "ipc or add images"
            )
        ranks = torch.stack([own[members].argsort(stable=True).argsort() for own in scores])
        order = ranks.double().mean(dim=0).argsort(stable=True)
        for group, part in enumerate(torch.tensor_split(order, groups)):
            found[members[part]] = group
    return found
