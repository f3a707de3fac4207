"""The discriminator of MEAL V2: tells a student's outputs from its teachers'."""

from __future__ import annotations

import itertools

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

# Narrower layers often start dead: their ReLU gives zero for every input.
_MIN_WIDTH = 8


class Discriminator(nn.Module):
    """Logits [n, 2] of "a student's" and "the teachers'" for outputs [n, k].

    Three linear layers (1x1 convolutions in the published code) of k / 8, k / 64 and 2 outputs,
    with a ReLU between them. Two things differ from that code: the inner widths are at least 8,
    where k is small, and the last layer has no ReLU, behind which a logit could not fall below 0
    and half of all starts would be dead. Source: Shen and Savvides 2020 (MEAL V2).

    Args:
        classes: k.
        weight: of its loss beside that of the soft labels; 1 in MEAL V2.
        generator: draws its weights, uniformly within 1 / sqrt(inputs).
    """

    def __init__(self, classes: int, weight: float, generator: Generator) -> None:
        super().__init__()
        widths = [classes, max(classes // 8, _MIN_WIDTH), max(classes // 64, _MIN_WIDTH), 2]
        self.weight = weight
        layers = [nn.Linear(before, after) for before, after in itertools.pairwise(widths)]
        with torch.no_grad():
            for layer in layers:
                bound = layer.in_features**-0.5
                for values in layer.parameters():
                    values.uniform_(-bound, bound, generator=generator)
        self.layers = nn.ModuleList(layers)

    def forward(self, outputs: Tensor) -> Tensor:
        """Logits [n, 2] of outputs [n, k]."""
        for layer in self.layers[:-1]:
            outputs = torch.relu(layer(outputs))
        logits: Tensor = self.layers[-1](outputs)
        return logits


def discriminator_loss(
    discriminator: Discriminator, logits: Tensor, label_logits: Tensor
) -> Tensor:
    """Binary cross-entropy with (1, 0) for each student's logits and (0, 1) for the teachers'.

    Student and discriminator both minimise it (no gradient is reversed), so it keeps the student
    distinguishable from its teachers; the authors call that a regulariser.

    Args:
        discriminator: of k classes.
        logits: [n, k] of the student.
        label_logits: [n, k] of the teachers, as the labels hold them.
    """
    scores = discriminator(torch.cat([logits, label_logits]))
    targets = torch.zeros_like(scores)
    targets[: len(logits), 0] = 1
    targets[len(logits) :, 1] = 1
    return functional.binary_cross_entropy_with_logits(scores, targets)
