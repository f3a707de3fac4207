"""Losses between logits, written so that every order of derivative is right."""

from __future__ import annotations

import torch
from torch import Tensor

# Logit margin that leaves 1e-13 of the probability to the other classes: one-hot in float32.
HARD_LOGIT = 30.0

# A larger loss counts as divergence, even while it is finite.
MAX_LOSS = 1e8


def log_softmax(logits: Tensor) -> Tensor:
    """Log softmax over the last dimension, [..., k] to [..., k].

    Written out because the native kernel writes in place under forward-mode differentiation.
    """
    shifted = logits - logits.detach().amax(dim=-1, keepdim=True)
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


def soft_cross_entropy(
    logits: Tensor,
    label_logits: Tensor,
    temperature: float = 1.0,
    student_temperature: float | None = None,
) -> Tensor:
    """-sum_k softmax(label_logits / T) log softmax(logits / s), mean over the batch.

    With s = T its gradient in `logits` is that of the KL divergence at temperature T, with no T^2
    factor.

    Args:
        logits: [n, k] of the student.
        label_logits: [n, k]; their softmax is the soft label.
        temperature: T > 0.
        student_temperature: s > 0; None for T.

    Raises:
        ValueError: if the shapes differ; they would broadcast silently.
    """
    if logits.shape != label_logits.shape:
        raise ValueError(
            f"got logits of shape {tuple(logits.shape)} and label logits of shape "
            f"{tuple(label_logits.shape)}; need one row per image and one column per class in both"
        )
    targets = log_softmax(label_logits / temperature).exp()
    own = temperature if student_temperature is None else student_temperature
    return -(targets * log_softmax(logits / own)).sum(dim=-1).mean()


def cosine_loss(logits: Tensor, label_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """1 - cos(logits, softmax(label_logits / T)), mean over the batch.

    Source: Shang et al. 2025 (GIFT), with labels refined by
    `synth.committee.strategies.refined_labels`.

    Args:
        logits: [n, k] of the student.
        label_logits: [n, k]; their softmax is the soft label.
        temperature: T > 0, of the labels alone.
    """
    targets = log_softmax(label_logits / temperature).exp()
    return 1 - torch.nn.functional.cosine_similarity(logits, targets, dim=-1).mean()


def hard_logits(labels: Tensor, classes: int) -> Tensor:
    """Label logits [n, classes] whose softmax is one-hot (to 1e-13) at `labels` [n]."""
    return torch.nn.functional.one_hot(labels, classes).float() * HARD_LOGIT
