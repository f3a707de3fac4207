"""How well a network's features fit a task: PARC, on a small labelled probe."""

from __future__ import annotations

import torch
from torch import Tensor


def parc(features: Tensor, labels: Tensor, classes: int) -> float:
    """Rank correlation of distances between features and distances between labels.

    A distance is one minus Pearson's correlation of two rows. Source: Bolya et al. 2021 (PARC);
    used to weigh teachers by Borup et al. 2023. The published number is 100 times this one.

    Args:
        features: [n, d] of the probe's images.
        labels: [n] their classes.
        classes: k.

    Returns:
        A number in [-1, 1]; 1 where the features order all pairs as the labels do.

    Raises:
        ValueError: for fewer than three images, or images of one class alone.
    """
    if len(features) < 3 or len(labels.unique()) < 2:
        raise ValueError(
            f"got {len(features)} images of {len(labels.unique())} classes; a similarity needs "
            "at least three images of two classes"
        )
    rows, columns = torch.tril_indices(len(features), len(features), -1).to(features.device)
    hard = torch.nn.functional.one_hot(labels, classes)
    distances = [1 - _row_correlations(part.double())[rows, columns] for part in (features, hard)]
    correlations = _row_correlations(torch.stack([_ranks(part) for part in distances]))
    return float(correlations[0, 1])


def _row_correlations(values: Tensor) -> Tensor:
    """Pearson's correlation [n, n] of the rows of `values` [n, d]; 0 for a constant row."""
    centred = values - values.mean(dim=1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    unit = centred / norms.clamp(min=torch.finfo(values.dtype).tiny)
    return unit @ unit.T


def _ranks(values: Tensor) -> Tensor:
    """Ranks [n] from 1 on; equal values share the mean of their ranks."""
    # Distances that are equal up to rounding are ties: all pairs of labels are.
    _, inverse, counts = values.round(decimals=10).unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]
