"""Coded images brought nearer to the originals in the same bytes: rate-distortion optimisation.

A setting that is too fine for the bytes is taken, and the images that are handed to the coder are
moved by a few gradient steps: down a distance between what they decode to and the originals, with
gradients straight through the rounding, and down their bits, as far as a multiplier says that
follows the bits to the budget. Numbers that matter little take the cheaper integer; the others keep
the finer steps.

Source: Sullivan and Wiegand 1998 for the Lagrangian; Ballé et al. 2017 for descent on distance and
bits together; Bengio et al. 2013 for the gradient through rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from synth.coding.base import ImageCoding
from synth.coding.container import pack_images
from synth.coding.errors import CodingError
from synth.coding.trim import trim
from synth.matching.rate import Rate, rate_step
from synth.updates import Adam, Moments

# Short memories: there are few steps, and the gradient changes whenever a number rounds anew.
_RULE = Adam(mean_decay=0.8, square_decay=0.95)

# Steps shrink by half a cosine from the first one to this share of it.
_LAST_SHARE = 0.1

# States that take more than the limit by this factor, and by so many bytes, are not trimmed.
_OVER, _OVER_BYTES = 1.02, 16

# Halvings of the way from a refined state back to the originals.
_HALVINGS = 7


@dataclass(frozen=True)
class Refinement:
    """How images are refined.

    Attributes:
        steps: gradient steps, at least 1.
        size: of the first step down the distance, in pixels of [0, 1].
        speed, share: see `Rate`.
    """

    steps: int = 30
    size: float = 0.03
    speed: float = 1.0
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.size > 0:
            raise ValueError(
                f"{self.steps} steps of size {self.size}; both must be above 0, or do not refine"
            )

    def size_of(self, step: int) -> float:
        """The size of a step, counted from 0."""
        falling = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.size * (_LAST_SHARE + (1 - _LAST_SHARE) * falling)


@dataclass(frozen=True)
class Refined:
    """Coded images before a step of refinement, or after the last one.

    Attributes:
        step: steps that were taken, from 0.
        parameters: of the coding.
        distance: of what they decode to.
        bits: that they take by the coding's estimate, without the header.
    """

    step: int
    parameters: Tensor
    distance: float
    bits: float


def refine(
    coding: ImageCoding,
    images: Tensor,
    distance: Callable[[Tensor], Tensor],
    budget: float,
    settings: Refinement = Refinement(),
) -> Iterator[Refined]:
    """Refine coded images towards a budget; yields `settings.steps + 1` states.

    Args:
        coding: finer than the budget allows for the images as they are; its bits must depend on
            them, which those of `Pixels` do not.
        images: the originals' pixels [n, c, h, w].
        distance: decoded pixels [n, c, h, w] -> a scalar to be small, differentiable.
        budget: bits of the coded images by the coding's estimate, above 0.
        settings: how many steps and how long.
    """
    rate = Rate(
        lambda moved: coding.bits(coding.start(moved)), budget, settings.speed, settings.share
    )
    images, multiplier = images.detach(), images.new_zeros(())
    moments = Moments.zeros(images)
    for step in range(settings.steps + 1):
        stored = images.clone().requires_grad_()
        parameters = coding.start(stored)
        error = distance(coding.decode(parameters))
        (gradient,) = torch.autograd.grad(error, stored)
        moved, moments = _RULE(images, gradient, moments, settings.size_of(step), step + 1)
        images, multiplier, bits = rate_step(images, moved, multiplier, rate)
        yield Refined(step, parameters.detach(), float(error.detach()), bits)


def nearest_that_fits(
    coding: ImageCoding,
    images: Tensor,
    states: Iterable[Refined],
    distance: Callable[[Tensor], Tensor],
    limit: int,
    coder: str = "arithmetic",
) -> tuple[float, Tensor, bytes] | None:
    """Of the states of `refine`, the nearest that takes at most `limit` bytes when it is packed.

    States a little above the limit are made to fit, see `trim`. What a state leaves of the bytes is
    used up by going back towards the originals, as far as fits.

    Args:
        coding: of the states.
        images: the originals' pixels, as for `refine`.
        states: from `refine`.
        distance: as there; the same at every call.
        limit: most bytes of `pack_images`.
        coder: one of `CODERS`.

    Returns:
        The distance, the parameters and their bytes; None if no state fits.
    """
    originals, best = coding.start(images), None
    for state in states:
        if state.bits > 8 * limit * _OVER or (best is not None and state.distance >= best[0]):
            continue
        if len(pack_images(coding, state.parameters, coder)) > limit * _OVER + _OVER_BYTES:
            continue
        try:
            kept = trim(coding, state.parameters, limit, coder)
        except CodingError:
            continue
        for parameters, payload in (kept, _towards(coding, *kept, originals, limit, coder)):
            with torch.no_grad():
                error = float(distance(coding.decode(parameters)))
            if best is None or error < best[0]:
                best = (error, parameters, payload)
    return best


def _towards(
    coding: ImageCoding,
    parameters: Tensor,
    payload: bytes,
    originals: Tensor,
    limit: int,
    coder: str,
) -> tuple[Tensor, bytes]:
    """The parameters moved towards the originals as far as their bytes stay within the limit."""
    low, high, found = 0.0, 1.0, (parameters, payload)
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        moved = torch.lerp(parameters, originals, share)
        packed = pack_images(coding, moved, coder)
        if len(packed) <= limit:
            low, found = share, (moved, packed)
        else:
            high = share
    return found
