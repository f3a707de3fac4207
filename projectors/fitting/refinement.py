"""Refine images so that an encoder's features survive the loss of fine detail.

The last step of HeLlO's images: minimise |E(x) - E(up(down(x)))|^2 over the pixels, so that an
image has the features that it was labelled by at any scale that a student sees.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from projectors.errors import DivergedError, ProjectorError


@dataclass(frozen=True)
class RefineSettings:
    """How images are refined.

    Attributes:
        steps: updates of each image.
        lr: of Adam, in units of the images.
        factor: each side is divided by this on the way down, > 1.
    """

    steps: int = 10
    lr: float = 0.01
    factor: float = 2.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.factor <= 1:
            raise ProjectorError(
                f"steps is {self.steps}, lr {self.lr} and factor {self.factor}; write at least 1, "
                "above 0 and above 1"
            )


@dataclass(frozen=True)
class RefineStep:
    """One update of all images: its index from 0, and the mean loss of an image before it."""

    index: int
    loss: float


def refine_images(
    images: Tensor,
    encode: Callable[[Tensor], Tensor],
    settings: RefineSettings,
    *,
    decode: Callable[[Tensor], Tensor] | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    batch_size: int = 128,
) -> Iterator[RefineStep]:
    """Refine images, in place; one update of all of them per item.

    Each image has a loss of its own, so that the batches do not matter.

    Args:
        images: [n, c, h, w]; changed in place.
        encode: images that students see [m, c, h, w] -> features [m, d], differentiable.
        settings: how many updates, how large, and how coarse.
        decode: stored images -> those that students see, differentiable; None if they are the
            same.
        bounds: smallest and largest pixel values, broadcastable to the images; None for no
            bounds.
        batch_size: stored images at a time.

    Raises:
        ProjectorError: if the images are too small to shrink by `factor`.
        DivergedError: if the loss is no longer finite; the images are then of no use.

    Source: HeLlO, image update (its step size is not published).
    """
    small = tuple(max(1, round(side / settings.factor)) for side in images.shape[-2:])
    if small == images.shape[-2:]:
        raise ProjectorError(
            f"images of {tuple(images.shape[-2:])} are not made smaller by {settings.factor}; "
            "raise factor"
        )
    mean, square = torch.zeros_like(images), torch.zeros_like(images)
    for index in range(settings.steps):
        total = 0.0
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            seen = images[part].detach().requires_grad_(True)
            loss = _inconsistency(seen if decode is None else decode(seen), encode, small)
            (gradient,) = torch.autograd.grad(loss, seen)
            total += float(loss.detach())
            mean[part].lerp_(gradient, 0.1)
            square[part].lerp_(gradient.square(), 0.001)
        if not total < float("inf"):
            raise DivergedError(f"the loss became {total} at step {index}; lower lr", index)
        # Adam, written out because the images' gradients come in parts.
        step = mean / (1 - 0.9 ** (index + 1))
        step /= (square / (1 - 0.999 ** (index + 1))).sqrt() + 1e-8
        images.sub_(settings.lr * step)
        if bounds is not None:
            torch.maximum(torch.minimum(images, bounds[1]), bounds[0], out=images)
        yield RefineStep(index, total / len(images))


def down_up(images: Tensor, small: tuple[int, ...]) -> Tensor:
    """Images [n, c, h, w] shrunk to [h', w'] and enlarged again, differentiably."""
    shrunk = functional.interpolate(
        images, small, mode="bilinear", align_corners=False, antialias=True
    )
    return functional.interpolate(shrunk, images.shape[-2:], mode="bilinear", align_corners=False)


def _inconsistency(
    images: Tensor, encode: Callable[[Tensor], Tensor], small: tuple[int, ...]
) -> Tensor:
    """Sum over the images of the mean squared difference of their features."""
    difference = encode(images) - encode(down_up(images, small))
    return difference.square().mean(dim=1).sum()
