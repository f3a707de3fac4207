"""Images that are blended with real ones while they are recovered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

# Standard deviation, in pixels, of the filter before edges are measured, and its radius.
_SIGMA, _RADIUS = 1.0, 3


@dataclass(frozen=True)
class Blending:
    """Blends with real patches between equal blocks of steps. Source: FADRM (Cui et al. 2025).

    The steps are cut into times + 1 blocks, the last of which takes what is left over. After each
    block but the last, images become kept * images + (1 - kept) * patches, and the update rule
    starts anew.

    Attributes:
        times: k; FADRM's 3.
        kept: in [0, 1); FADRM's 0.5.
        patches: images [b, c, h, w] -> the real patches of the same shape to blend with: those
            that recovery started from, or those of `nearest_patches`.
    """

    times: int
    kept: float
    patches: Callable[[Tensor], Tensor]

    def due(self, taken: int, steps: int) -> bool:
        """Whether images are blended once so many of the steps are taken."""
        block = self._block(steps)
        return 0 < taken < steps and taken % block == 0 and taken // block <= self.times

    def since(self, taken: int, steps: int) -> int:
        """How many of the steps taken came after the last blend."""
        block = self._block(steps)
        return taken - block * min(taken // block, self.times)

    def __call__(self, images: Tensor) -> Tensor:
        """The blend of images [b, c, h, w]."""
        return self.kept * images + (1 - self.kept) * self.patches(images)

    def _block(self, steps: int) -> int:
        # With fewer steps than blocks, every step is one.
        return max(1, steps // (self.times + 1))


def nearest_patches(features: Tensor, pool: Tensor, complexity: Tensor, weight: float) -> Tensor:
    """The places [b] in a pool of the patches of least `fit_complexity`.

    Source: the dynamic retrieval of RETA (Li et al. 2026), after the description in a summary.

    Args:
        features: [b, d] of recovered images of one class.
        pool: [p, d], features of real images of that class.
        complexity: [p] of these, see `edge_complexity`.
        weight: lambda, in [0, 1]; RETA's 0.1.
    """
    return fit_complexity(features, pool, complexity, weight).argmin(dim=1)


def fit_complexity(features: Tensor, pool: Tensor, complexity: Tensor, weight: float) -> Tensor:
    """(1 - weight) |q - z|^2 + weight * c, [b, p], q and z features of length 1.

    The complexities are divided by their mean, so that a weight means the same on all data; how
    the paper scales them is not known here.

    Args:
        features: [b, d] of recovered images.
        pool: [p, d] of real ones.
        complexity: [p] of real ones.
        weight: lambda.
    """
    q, z = (_normalised(part) for part in (features, pool))
    gaps = torch.cdist(q, z).square()
    scaled = complexity / complexity.mean().clamp_min(torch.finfo(torch.float32).tiny)
    return (1 - weight) * gaps + weight * scaled


def _normalised(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features, dim=1)


def edge_complexity(images: Tensor) -> Tensor:
    """The variance [n], over pixels, of the squared gradient of images smoothed by a Gaussian.

    Large where single edges are sharp. The squares are summed over channels. Source: RETA, as
    `nearest_patches`; a filter of 1 pixel is this package's choice.

    Args:
        images: [n, c, h, w].
    """
    smooth = _smoothed(images)
    down = smooth[:, :, 1:, :-1] - smooth[:, :, :-1, :-1]
    right = smooth[:, :, :-1, 1:] - smooth[:, :, :-1, :-1]
    squares = (down.square() + right.square()).sum(dim=1)
    return squares.flatten(1).var(dim=1, correction=0)


def _smoothed(images: Tensor) -> Tensor:
    places = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-places.square() / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    flat = images.flatten(0, 1)[:, None]
    flat = conv2d(pad(flat, (_RADIUS, _RADIUS, 0, 0), mode="replicate"), weights[None, None, None])
    flat = pad(flat, (0, 0, _RADIUS, _RADIUS), mode="replicate")
    return conv2d(flat, weights[None, None, :, None]).view_as(images)
