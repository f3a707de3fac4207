"""A network's parameters as one flat vector [p], and calls with such a vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call


@dataclass(frozen=True)
class ParameterLayout:
    """Names and shapes of a network's parameters, in the order of `named_parameters()`."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values in each parameter."""
        return tuple(shape.numel() for shape in self.shapes)

    @property
    def count(self) -> int:
        """p, the number of values in all parameters."""
        return sum(self.sizes)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of `vector` [p] as named parameters; differentiable.

        Raises:
            ValueError: if the vector has another length.
        """
        if vector.shape != (self.count,):
            raise ValueError(
                f"got a parameter vector of shape {tuple(vector.shape)}; this network needs "
                f"({self.count},): use snapshots recorded with the same network"
            )
        # One split is one backward node that concatenates; slicing would add p-sized zeros each.
        parts = torch.split(vector, list(self.sizes))
        return {
            name: part.view(shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }


def parameter_layout(network: nn.Module) -> ParameterLayout:
    """The layout of `network`'s parameters."""
    named = list(network.named_parameters())
    return ParameterLayout(tuple(name for name, _ in named), tuple(p.shape for _, p in named))


def parameter_vector(network: nn.Module) -> Tensor:
    """A detached copy of all parameters as one vector [p]."""
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def load_vector(network: nn.Module, vector: Tensor) -> None:
    """Copy `vector` [p] into the parameters of `network`, in place."""
    named = parameter_layout(network).unflatten(vector.detach())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(named[name])


def call_with_vector(
    network: nn.Module, layout: ParameterLayout, vector: Tensor, images: Tensor
) -> Tensor:
    """Logits [n, k] of `images` with the parameters in `vector` [p]; differentiable in both."""
    return functional_call(network, layout.unflatten(vector), (images,))
