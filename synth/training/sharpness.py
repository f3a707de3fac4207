"""Sharpness-aware gradients, which make expert trajectories easier to follow (FTD)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sharpness:
    """Adaptive GSAM, as FTD trains its experts.

    The gradient g' is taken at w + rho * w^2 g / |w g|; from it, alpha times the part of the
    clean gradient g that is orthogonal to g' is subtracted. Sources: Kwon et al. 2021 (the
    adaptive perturbation), Zhuang et al. 2022 (GSAM), Du et al. 2023 (FTD).

    Attributes:
        rho: size of the perturbation, > 0; FTD uses 0.01.
        alpha: weight of the orthogonal part; FTD uses 0.3 or 1.
    """

    rho: float
    alpha: float

    def __post_init__(self) -> None:
        if not self.rho > 0 or self.alpha < 0:
            raise ValueError(f"rho is {self.rho} and alpha {self.alpha}; need rho > 0, alpha >= 0")


def sharpness_aware_backward(
    parameters: Sequence[Tensor], loss: Callable[[], Tensor], sharpness: Sharpness
) -> Tensor:
    """Set `.grad` of the parameters to the sharpness-aware gradient of `loss`.

    Args:
        parameters: leaves that require gradients; their values are the same afterwards.
        loss: computes the loss at their values; called twice.
        sharpness: rho and alpha.

    Returns:
        The clean loss, scalar, detached.
    """
    clean_loss = loss()
    clean = torch.autograd.grad(clean_loss, parameters)
    values = [parameter.detach().clone() for parameter in parameters]
    norm = _norm([value * g for value, g in zip(values, clean, strict=True)]) + 1e-12
    with torch.no_grad():
        for parameter, value, g in zip(parameters, values, clean, strict=True):
            # The norm stays on the device: reading it would synchronise at every step.
            parameter.add_(value.square() * g * (sharpness.rho / norm))
    perturbed = torch.autograd.grad(loss(), parameters)
    product = sum(((a * b).sum() for a, b in zip(clean, perturbed, strict=True)), torch.zeros(()))
    share = product / (_norm(perturbed).square() + 1e-12)
    with torch.no_grad():
        for parameter, value, g, p in zip(parameters, values, clean, perturbed, strict=True):
            parameter.copy_(value)
            parameter.grad = p - sharpness.alpha * (g - share * p)
    return clean_loss.detach()


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt()
