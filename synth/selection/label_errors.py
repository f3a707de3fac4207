"""Labels that networks contradict: confident learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Images whose label is likely wrong, the most evident first.

    Attributes:
        indices: int64 [m] of the images.
        suggested: int64 [m], the class that they are confidently taken for.
        own: [m] probability of their label.
        other: [m] probability of the suggested class.
    """

    indices: Tensor
    suggested: Tensor
    own: Tensor
    other: Tensor


def confident_errors(probabilities: Tensor, labels: Tensor) -> LabelErrors:
    """The off-diagonal of the confident joint, by the difference of the two probabilities.

    A class's threshold is the mean probability of that class among the images that have its label.
    Of the classes whose threshold an image reaches it is confidently taken for the most probable
    one; if that is not its label, the label is likely wrong. The probabilities should come from
    networks that were not trained on these images: those that memorised wrong labels do not
    contradict them.

    Source: Northcutt, Jiang and Chuang 2021, Confident Learning; ranked as their
    normalised margin.

    Args:
        probabilities: [n, k], rows sum to 1.
        labels: int64 [n].
    """
    count = torch.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities.gather(1, labels[:, None])[:, 0]
    sums = torch.zeros(len(count), dtype=own.dtype, device=own.device).index_add(0, labels, own)
    # A class without images has no threshold, and nothing is taken for it.
    thresholds = torch.where(count > 0, sums / count.clamp(min=1), torch.inf)
    reached = probabilities.masked_fill(probabilities < thresholds, -1)
    other, suggested = reached.max(dim=1)
    found = torch.nonzero((other >= 0) & (suggested != labels)).flatten()
    ranked = found[(own[found] - other[found]).argsort(stable=True)]
    return LabelErrors(ranked, suggested[ranked], own[ranked], other[ranked])
