"""The exponential moving average of a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Average:
    """A moving average of a tensor that an optimiser changes.

    Holds a detached copy, so an in-place step on the tensor does not move the average, and no
    graph grows behind it.

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
        """The average after `new` came: decay * value + (1 - decay) * new.

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
