"""Training with rounded weights, so that a network loses nothing when it is stored in few bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

Rounding = Callable[[Tensor], Tensor]


class RoundedNetwork(nn.Module):
    """A network that computes with rounded matrices and kernels; training moves the exact ones.

    The rounding passes gradients on as they are (straight-through). Biases and norms stay exact.
    Source: Hubara et al. 2016, Jacob et al. 2018 (quantisation-aware training).

    >>> network = nn.Linear(2, 1, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[0.6, -2.2]]))
    >>> RoundedNetwork(network, torch.round)(torch.ones(1, 2)).item()
    -1.0

    Args:
        network: whose weights are trained.
        rounding: the values that are kept of a weight of two or more dimensions.
    """

    def __init__(self, network: nn.Module, rounding: Rounding) -> None:
        super().__init__()
        self.network = network
        self._rounding = rounding

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w], from rounded weights."""
        # Exactly the rounded weight, with the gradient of the weight.
        rounded = {
            name: self._rounding(weight.detach()) + (weight - weight.detach())
            for name, weight in self._weights().items()
        }
        logits: Tensor = functional_call(self.network, rounded, (images,))
        return logits

    def rounded_state(self) -> dict[str, Tensor]:
        """The network's own state, with rounded weights."""
        weights = self._weights()
        with torch.no_grad():
            return {
                name: self._rounding(value) if name in weights else value
                for name, value in self.network.state_dict().items()
            }

    def _weights(self) -> dict[str, nn.Parameter]:
        """The matrices and kernels, which are rounded."""
        return {name: one for name, one in self.network.named_parameters() if one.dim() > 1}
