"""Two means over teachers: of their logits, and of their probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_logits(members: Tensor, weights: Tensor) -> Tensor:
    """sum_m w_m z_m: confident members count more than others. Source: CV-DD.

    Args:
        members: logits [m, ..., k].
        weights: [m], summing to 1.

    Returns:
        Label logits [..., k].
    """
    return torch.tensordot(weights.to(members), members, dims=1)


def mean_probabilities(members: Tensor, weights: Tensor) -> Tensor:
    """Log sum_m w_m softmax(z_m): members count by their weights alone. Source: MEAL V2.

    Args:
        members: logits [m, ..., k].
        weights: [m], summing to 1.

    Returns:
        Label logits [..., k]; their softmax at temperature 1 is the mean.
    """
    logs = torch.log_softmax(members, dim=-1)
    shape = (-1, *(1,) * (members.dim() - 1))
    return torch.logsumexp(logs + weights.to(members).log().view(shape), dim=0)
