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
        share: length of the first step down the bits, relative to that down the distance.
    """

    bits: Callable[[Tensor], Tensor]
    budget: float
    speed: float = 0.1
    share: float = 0.3

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise ValueError(f"the budget is {self.budget} bits; it must be above 0")


def rate_step(
    images: Tensor, moved: Tensor, multiplier: Tensor, rate: Rate
) -> tuple[Tensor, Tensor, float]:
    """A step down the bits beside one down the distance, after a step of dual ascent.

    Its length is the multiplier times that of the step down the distance, whatever rule took that
    one: a rule such as Adam would divide both gradients by the size of the noisier one. The
    logarithm of the multiplier rises by speed * (bits / budget - 1), so it settles where the
    images take the budget.

    Args:
        images: stored images before the step, any shape.
        moved: the same after the step down the distance.
        multiplier: scalar; 0 before the first step, which begins with `rate.share`.
        rate: sizes and budget.

    Returns:
        The images after both steps, the next multiplier, and the bits that `images` take.
    """
    stored = images.detach().requires_grad_()
    bits = rate.bits(stored)
    (slope,) = torch.autograd.grad(bits, stored)
    taken = float(bits.detach())
    if float(multiplier) == 0:
        multiplier = torch.full_like(multiplier, rate.share)
    # Far above the budget a step is no larger than at twice of it.
    excess = min(taken / rate.budget - 1, 1.0)
    following = multiplier * math.exp(rate.speed * excess)
    length = following * (moved - images).norm() / slope.norm().clamp_min(1e-12)
    return moved - length * slope, following, taken
