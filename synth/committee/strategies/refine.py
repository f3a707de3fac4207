"""Changes of labels that cost no bytes: hard stages (HALD) and refined labels (GIFT)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# In place of a probability of 0, so that logits stay finite.
_MIN_PROBABILITY = 1e-13


def is_hard_epoch(epoch: int, epochs: int, share: float) -> bool:
    """Whether an epoch has hard labels: soft, then `share` of all epochs hard, then soft again.

    Source: HALD, order "S6", with a share of one half.

    >>> [is_hard_epoch(epoch, 8, 0.5) for epoch in range(8)]
    [False, False, True, True, True, True, False, False]

    Args:
        epoch: from 0.
        epochs: of the whole training.
        share: in [0, 1].
    """
    hard = round(share * epochs)
    first = (epochs - hard) // 2
    return first <= epoch < first + hard


def smoothed_logits(hard: Tensor, classes: int, smoothing: float) -> Tensor:
    """Label logits [n, k] of (1 - s) one-hot + s / k. HALD's hard stage smooths by 0.8.

    Args:
        hard: [n] int64.
        classes: k.
        smoothing: s in [0, 1).
    """
    one_hot = functional.one_hot(hard, classes).float()
    return ((1 - smoothing) * one_hot + smoothing / classes).clamp_min(_MIN_PROBABILITY).log()


def refined_labels(logits: Tensor, hard: Tensor, temperature: float, share: float) -> Tensor:
    """GIFT's refined probabilities [n, k]: share * one-hot + (1 - share) * softmax(z / T).

    Source: Shang et al. 2025 (GIFT), which trains on their cosine similarity with the student.

    Args:
        logits: [n, k] soft labels.
        hard: [n] int64.
        temperature: T > 0.
        share: of the hard label, in [0, 1].
    """
    soft = torch.softmax(logits / temperature, dim=1)
    return share * functional.one_hot(hard, logits.shape[1]).to(soft) + (1 - share) * soft
