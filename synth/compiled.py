"""Networks compiled for the shape of their batches, where that is asked for.

Compilation joins norms, activations and pooling into few passes over memory. It computes the same
up to rounding: a compiled and an eager training differ in their last bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor]


class CompiledNetwork:
    """A network whose batches of one shape run compiled, and all others as they are.

    The last batch of an epoch is often smaller; it is not worth a compilation of its own.

    Args:
        network: images [b, c, h, w] -> logits [b, k].
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._compiled: Network = torch.compile(network, dynamic=False)
        self._shape: torch.Size | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of a batch."""
        if self._shape is None:
            self._shape = images.shape
        if images.shape == self._shape:
            return self._compiled(images)
        logits: Tensor = self._network(images)
        return logits
