"""The optimisers of trainings by name, and Muon for networks with kernels, norms and biases."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

OptimizerName = Literal["sgd", "adam", "adamw", "muon"]


class Optimizer(Protocol):
    """What a training asks of an optimiser; those of PyTorch have it."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""

    def step(self) -> Any:
        """Update every parameter that has a gradient."""


def make_optimizer(
    network: nn.Module, name: OptimizerName, lr: float, momentum: float, weight_decay: float
) -> Optimizer:
    """The optimiser of a network's parameters.

    Args:
        network: whose parameters are trained.
        name: "sgd", "adam", "adamw" or "muon".
        lr: learning rate.
        momentum: of SGD.
        weight_decay: decoupled for AdamW and Muon, L2 for SGD and Adam; never on biases and norms.

    Raises:
        ValueError: for another name, or for "muon" where PyTorch has none.
    """
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    if name == "muon":
        return Muon(matrices, vectors, lr, weight_decay)
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One kernel for all weights: on a GPU small ones cost more to launch than to update.
    fused = all(p.device.type == "cuda" for p in network.parameters()) or None
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=fused)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
    raise ValueError(f"optimizer is {name!r}; choose sgd, adam, adamw or muon")


class Muon:
    """PyTorch's Muon for hidden matrices and kernels, and AdamW for all other parameters.

    A kernel [o, i, h, w] is a matrix [o, i * h * w]. The last matrix, which is the head's, other
    shapes, biases and norms are AdamW's. Updates are scaled to the root mean square of AdamW's, so
    that both have one learning rate and one weight decay. Sources: Jordan et al. 2024 (Muon), Liu
    et al. 2025 (the scale).

    Args:
        matrices: parameters of two and more dimensions, in the order of the network.
        vectors: biases and norms, which do not decay.
        lr: learning rate.
        weight_decay: decoupled.

    Attributes:
        param_groups: of both optimisers.

    Raises:
        ValueError: where PyTorch has no Muon.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        vectors: list[nn.Parameter],
        lr: float,
        weight_decay: float,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"optimizer is 'muon', which PyTorch has from 2.9 on, and this is "
                f"{torch.__version__}; install a newer one, or choose adamw"
            )
        hidden = [p for p in matrices[:-1] if p.ndim in (2, 4)]
        taken = set(map(id, hidden))
        others = [p for p in matrices if id(p) not in taken]
        # Each matrix is another view of its parameter's memory, so that one update is both's.
        self._hidden = [(p, nn.Parameter(p.detach().view(len(p), -1))) for p in hidden]
        self._all = [*matrices, *vectors]
        groups = [
            {"params": others, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        rest = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr)
        self._steps: list[torch.optim.Optimizer] = [rest]
        if self._hidden:
            flat = [matrix for _, matrix in self._hidden]
            self._steps.append(
                torch.optim.Muon(
                    flat, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )
        self.param_groups = [group for step in self._steps for group in step.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients; `set_to_none` as of PyTorch's optimisers."""
        for parameter in self._all:
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.zero_()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for parameter, matrix in self._hidden:
            gradient: Tensor | None = parameter.grad
            matrix.grad = None if gradient is None else gradient.reshape(matrix.shape)
        for step in self._steps:
            step.step()
