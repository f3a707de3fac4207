"""Update rules of the outer loop, as pure functions of a value, its gradient and a memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """A running mean of the gradient, and of its square where the rule needs one."""

    mean: Tensor
    square: Tensor

    @staticmethod
    def zeros(like: Tensor) -> Moments:
        """Moments before the first update."""
        return Moments(torch.zeros_like(like), torch.zeros_like(like))


# (value, gradient, moments, step size, number of this update from 1) -> (value, moments)
UpdateRule = Callable[[Tensor, Tensor, Moments, float, int], tuple[Tensor, Moments]]


def adam(
    value: Tensor, gradient: Tensor, moments: Moments, size: float, count: int
) -> tuple[Tensor, Moments]:
    """One step of Adam with betas (0.9, 0.999); Kingma and Ba 2015, algorithm 1.

    The step's size does not depend on the gradient's scale, which changes by orders of
    magnitude with the data, the network and the number of inner steps.
    """
    mean = 0.9 * moments.mean + 0.1 * gradient
    square = 0.999 * moments.square + 0.001 * gradient.square()
    direction = (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-12)
    return value - size * direction, Moments(mean, square)


@dataclass(frozen=True)
class Momentum:
    """Plain gradient steps with momentum, as MTT, TESLA, FTD and DATM use (0.5 on images)."""

    momentum: float

    def __call__(
        self, value: Tensor, gradient: Tensor, moments: Moments, size: float, count: int
    ) -> tuple[Tensor, Moments]:
        """One step; see `UpdateRule`."""
        velocity = self.momentum * moments.mean + gradient
        return value - size * velocity, Moments(velocity, moments.square)
