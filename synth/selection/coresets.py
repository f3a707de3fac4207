"""Real images selected by their features, class by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from synth.images import Images


class Features(Protocol):
    """Features [m, d] that can be indexed; a tensor is one."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """The features [n, d] at `index`, int64 [n]."""
        ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of images [m, c, h, w] as features [m, c * h * w], read on access."""

    images: Images

    def __getitem__(self, index: Any, /) -> Tensor:
        """The features [n, c * h * w] at `index`, int64 [n]."""
        return self.images[index].flatten(1)


def choose_per_class(
    features: Features,
    labels: Tensor,
    classes: int,
    ipc: int,
    choose: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Indices [classes * ipc] of the images that `choose` selects of each class, in class order.

    Args:
        features: [m, d] of the real images; read one class at a time.
        labels: [m] their classes.
        classes: k.
        ipc: images per class.
        choose: (features [n, d] of one class, count) -> indices [count]: `herding` or `k_center`.

    Raises:
        ValueError: if a class has fewer images than `ipc`.
    """
    chosen = []
    for label in range(classes):
        members = torch.nonzero(labels == label).flatten()
        if len(members) < ipc:
            raise ValueError(
                f"class {label} has {len(members)} candidates, but ipc is {ipc}; lower ipc or "
                "add images"
            )
        chosen.append(members[choose(features[members], ipc).to(members.device)])
    return torch.cat(chosen)


def herding(features: Tensor, count: int) -> Tensor:
    """Indices [count] whose mean feature stays nearest to the mean of all, greedily.

    Each next one brings the mean of those chosen so far as near as it can. Source: Welling 2009, as
    used by iCaRL (Rebuffi et al. 2017).

    Args:
        features: [n, d] of one class, n >= count.
        count: how many to choose, without repetition.
    """
    centre = features.mean(dim=0)
    total = torch.zeros_like(centre)
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    # One buffer for all steps: a new one in each, between what is kept, lets the heap grow by it.
    chosen, apart = _room(features, count)
    for step in range(count):
        torch.add(features, total, out=apart).div_(step + 1).sub_(centre)
        index = apart.norm(dim=1).masked_fill_(~free, torch.inf).argmin()
        total += features[index]
        free[index] = False
        chosen[step] = index
    return chosen


def k_center(features: Tensor, count: int) -> Tensor:
    """Indices [count] that leave no feature far away: greedy k-center.

    The first is the nearest to the mean; each next one is the farthest from those chosen so far.
    At most twice the best radius (Gonzalez 1985); as used by Sener and Savarese 2018.

    Args:
        features: [n, d] of one class, n >= count.
        count: how many to choose, without repetition.
    """
    index = (features - features.mean(dim=0)).norm(dim=1).argmin()
    nearest = torch.full((len(features),), torch.inf, device=features.device)
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    chosen, apart = _room(features, count)
    chosen[0] = index
    for step in range(1, count):
        free[index] = False
        torch.sub(features, features[index], out=apart)
        nearest = torch.minimum(nearest, apart.norm(dim=1))
        index = nearest.masked_fill(~free, -1.0).argmax()
        chosen[step] = index
    return chosen


def _room(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places for the chosen, int64 [count], and for one difference of all features [n, d]."""
    chosen = torch.empty(count, dtype=torch.int64, device=features.device)
    return chosen, torch.empty_like(features)
