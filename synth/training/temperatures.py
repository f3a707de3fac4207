"""Temperatures that change while a student trains on stored labels (LPQLD)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# The grid of the published code: student temperatures 0.01, 0.02, ... 1.
_GRID = 100


@dataclass(frozen=True)
class Annealing:
    """The labels' temperature by epoch, so that stored logits give other labels in each.

    Early, soft labels show every class; late, sharp ones show the best. Source: Xiao and He 2026
    (LPQLD, "dynamic knowledge reuse").

    >>> [round(Annealing("step", 2, 0.5).at(20.0, epoch, 6), 3) for epoch in range(6)]
    [20.0, 20.0, 10.0, 10.0, 5.0, 5.0]

    Attributes:
        kind: "step" multiplies by `factor` every `every` epochs; "cosine" falls from the labels'
            temperature towards `least` along half a cosine.
        every: epochs of a step, at least 1.
        factor: of a step, in (0, 1].
        least: of a cosine, above 0.
    """

    kind: Literal["step", "cosine"]
    every: int = 30
    factor: float = 0.7
    least: float = 1.0

    def at(self, temperature: float, epoch: int, epochs: int) -> float:
        """The temperature of an epoch, from 0, of labels that were stored for `temperature`."""
        if self.kind == "step":
            return float(temperature * self.factor ** (epoch // self.every))
        falling = 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        return self.least + (temperature - self.least) * falling


def calibrated_temperature(logits: Tensor, label_logits: Tensor, temperature: float) -> float:
    """The student's temperature s of 0.01, 0.02, ... 1 that is nearest to the labels.

    It minimises KL(softmax(label_logits / T) || softmax(logits / s)). Source: Xiao and He 2026
    (LPQLD, "calibrated student-teacher alignment").

    Args:
        logits: [n, k] of the student.
        label_logits: [n, k].
        temperature: T > 0, of the labels.
    """
    grid = torch.arange(1, _GRID + 1, device=logits.device).to(logits) / _GRID
    targets = torch.softmax(label_logits / temperature, dim=1)
    log_probabilities = torch.log_softmax(logits[None] / grid[:, None, None], dim=2)
    losses = -(targets * log_probabilities).sum(dim=2).mean(dim=1)
    return float(grid[losses.argmin()])
