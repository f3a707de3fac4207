"""Matching under a budget of bytes: distance + multiplier * bits, with a multiplier that adapts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rate:
    """What stored images may cost.

    Attributes:
        bits: stored images -> their coded size in bits, differentiable; see `synth.coding`.
        budget: bits that they may take, above 0.
        speed: how fast the logarithm of the multiplier follows the share of bits above the budget.
        share: size of the first rate gradient, relative to that of the distance.
    """

    bits: Callable[[Tensor], Tensor]
    budget: float
    speed: float = 0.1
    share: float = 0.1

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise ValueError(f"the budget is {self.budget} bits; it must be above 0")


def add_rate(
    images: Tensor, gradient: Tensor, multiplier: Tensor, rate: Rate
) -> tuple[Tensor, Tensor, float]:
    """The gradient of distance + multiplier * bits, after a step of dual ascent.

    Its logarithm rises by speed * (bits / budget - 1), so it settles where the images take the
    budget. The first one makes the rate gradient `share` as large as that of the distance.

    Args:
        images: stored images, any shape.
        gradient: of the distance in them.
        multiplier: scalar; 0 before the first step.
        rate: sizes and budget.

    Returns:
        The gradient, the next multiplier, and the bits that the images take.
    """
    stored = images.detach().requires_grad_()
    bits = rate.bits(stored)
    (slope,) = torch.autograd.grad(bits, stored)
    taken = float(bits.detach())
    if float(multiplier) == 0:
        scale = rate.share * gradient.norm() / slope.norm().clamp_min(1e-12)
        multiplier = scale.clamp_min(1e-30).to(multiplier)
    # Far above the budget a step is no larger than at twice of it.
    excess = min(taken / rate.budget - 1, 1.0)
    following = multiplier * math.exp(rate.speed * excess)
    return gradient + following * slope, following, taken
