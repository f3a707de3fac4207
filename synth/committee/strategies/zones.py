"""FerKD: labels of crops that show nothing, or the background, are dropped or corrected.

Source: Shen 2023 (FerKD), whose code and thresholds are not public; the defaults are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

DROPPED, BACKGROUND, KEPT = 0, 1, 2


@dataclass(frozen=True)
class Zones:
    """Thresholds on the teacher's confidence s in the image's class.

    Below `low` or above `top` a label is dropped; from `low` to `middle` the class gets 1 - epsilon
    and the others share epsilon; from there on the label stays.

    Attributes:
        low: T_L.
        middle: T_M.
        top: T_T; 1 drops none of the easy ones.
        epsilon: of the smoothing.
    """

    low: float = 0.05
    middle: float = 0.3
    top: float = 1.0
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.middle <= self.top <= 1 or not 0 <= self.epsilon < 1:
            raise ValueError(f"{self}: need 0 <= low <= middle <= top <= 1 and epsilon in [0, 1)")


def zone_of(probabilities: Tensor, hard: Tensor, zones: Zones) -> Tensor:
    """Zone [...] of each label: 0 dropped, 1 background, 2 kept.

    Args:
        probabilities: [..., k] of the teacher.
        hard: [...] int64, the image's class.
        zones: thresholds.
    """
    score = probabilities.gather(-1, hard[..., None])[..., 0]
    inside = torch.where(score < zones.middle, BACKGROUND, KEPT)
    outside = (score < zones.low) | (score > zones.top)
    return torch.where(outside, DROPPED, inside)


def calibrate(probabilities: Tensor, hard: Tensor, zones: Zones) -> Tensor:
    """Labels [..., k] with those of the background corrected; dropped ones stay as they are.

    Args:
        probabilities: [..., k].
        hard: [...] int64.
        zones: thresholds.
    """
    classes = probabilities.shape[-1]
    smooth = torch.full_like(probabilities, zones.epsilon / (classes - 1))
    smooth.scatter_(-1, hard[..., None], 1 - zones.epsilon)
    background = zone_of(probabilities, hard, zones) == BACKGROUND
    return torch.where(background[..., None], smooth, probabilities)


def replace_dropped(ids: Tensor, zone: Tensor) -> Tensor:
    """Where each label is read from, so that epochs keep their length.

    A dropped label takes the next kept one of the same image, in cyclic order from its own epoch
    on; without one it stays.

    Args:
        ids: [e, n] int64, image at each position.
        zone: [e, n] of `zone_of`.

    Returns:
        [e, n] int64, indices into the flattened labels.
    """
    flat_ids, kept = ids.flatten(), (zone != DROPPED).flatten()
    dropped = torch.nonzero(~kept).flatten()
    source = torch.arange(len(flat_ids))
    source[dropped] = next_of_image(flat_ids, kept)[dropped]
    return source.view_as(ids)


def next_of_image(ids: Tensor, allowed: Tensor) -> Tensor:
    """For each label, the next allowed one of the same image in cyclic order; or itself.

    Args:
        ids: [m] int64, image of each label.
        allowed: [m] bool.

    Returns:
        [m] int64 indices; a label whose image has no allowed one keeps its own.
    """
    count = len(ids)
    indices = torch.arange(count)
    keys = ids * count + indices
    good = keys[allowed].sort().values
    first = torch.searchsorted(good, ids * count)
    end = torch.searchsorted(good, (ids + 1) * count)
    chosen = torch.searchsorted(good, keys + 1)
    chosen = torch.where(chosen < end, chosen, first)
    padded = torch.cat([good % count, torch.zeros(1, dtype=torch.int64)])
    return torch.where(first < end, padded[chosen], indices)


def draw_cutmix_boxes(count: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """Draw a CutMix box [count, 4] (top, left, bottom, right) for each of `count` images.

    The centre lies anywhere, and the sides are those of the image, `size` (h, w), times the root
    of a uniform share; clipped. Source: Yun et al. 2019.
    """
    unit = torch.rand(count, 3, generator=generator)
    sides = torch.tensor(size)
    centres = (unit[:, :2] * sides).long()
    halves = (sides * (1 - unit[:, 2:]).sqrt()).long() // 2
    near = (centres - halves).clamp_min(0)
    return torch.cat([near, torch.minimum(centres + halves, sides)], dim=1)


def self_mix(first: Tensor, second: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """SelfMix: a box of one crop pasted into another crop of the same image.

    Labels mix by the same fraction: q = lam q_first + (1 - lam) q_second.

    Args:
        first: crops [n, c, h, w].
        second: crops of the same images.
        box: [n, 4] int64, top, left, bottom, right of what is taken from `second`.

    Returns:
        Mixed crops, and lam [n], the fraction of pixels that stay.
    """
    height, width = first.shape[2:]
    rows = torch.arange(height, device=first.device).view(1, height, 1)
    columns = torch.arange(width, device=first.device).view(1, 1, width)
    top, left, bottom, right = (edge.view(-1, 1, 1) for edge in box.to(first.device).unbind(dim=1))
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    mixed = torch.where(inside[:, None], second, first)
    return mixed, 1 - inside.flatten(1).float().mean(dim=1)
