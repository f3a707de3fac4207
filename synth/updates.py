"""Update rules of the outer loop, as pure functions of a value, its gradient and moments."""

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


@dataclass(frozen=True)
class Adam:
    """Steps whose size does not depend on the gradient's scale; Kingma and Ba 2015, algorithm 1.

    That scale changes by orders of magnitude with the data, the network and the number of inner
    steps.

    Attributes:
        mean_decay, square_decay: beta_1 and beta_2.
        eps: added to the root of the mean square.
    """

    mean_decay: float = 0.9
    square_decay: float = 0.999
    eps: float = 1e-12

    def __call__(
        self, value: Tensor, gradient: Tensor, moments: Moments, size: float, count: int
    ) -> tuple[Tensor, Moments]:
        """One step; see `UpdateRule`."""
        first, second = self.mean_decay, self.square_decay
        mean = first * moments.mean + (1 - first) * gradient
        square = second * moments.square + (1 - second) * gradient.square()
        root = (square / (1 - second**count)).sqrt() + self.eps
        direction = (mean / (1 - first**count)) / root
        return value - size * direction, Moments(mean, square)


adam = Adam()


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


@dataclass(frozen=True, eq=False)
class Average:
    """A moving average of a tensor that an optimiser changes.

    Holds a detached copy, so an in-place step on the tensor does not change the average, and no
    autograd graph is kept.

    Attributes:
        value: the average so far, any shape, floating; at first the tensor itself.
        decay: share of the old value that an update keeps, in [0, 1); 0 follows the tensor.

    Raises:
        ValueError: for a decay outside [0, 1).

    Source: Du et al. 2023 (FTD), which averages the images with decays 0.999 to 0.9999.
    """

    value: Tensor
    decay: float

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}, which must be in [0, 1); FTD uses 0.9995")
        object.__setattr__(self, "value", self.value.detach().clone())

    def updated(self, new: Tensor) -> Average:
        """The average after one more value: decay * value + (1 - decay) * new.

        Args:
            new: shape, dtype and device of `value`.

        Raises:
            ValueError: if the shapes differ.
        """
        if new.shape != self.value.shape:
            raise ValueError(
                f"the new value is {tuple(new.shape)}, but the average is "
                f"{tuple(self.value.shape)}; start a new average for another shape"
            )
        return Average(torch.lerp(self.value, new.detach(), 1 - self.decay), self.decay)
