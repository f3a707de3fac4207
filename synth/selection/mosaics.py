"""RDED's mosaics: the most realistic crops of real images, several tiled in one image.

Sun et al. 2024. Two choices are ours: a crop is scored at the whole size of an image, as teachers
see images, and it is shrunk to its tile with antialiasing, by `synth.formation`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from synth.crops import crop_resized, draw_box
from synth.formation import encode_images
from synth.images import Images, images_at

# Candidates whose crops are scored in one step.
_CANDIDATE_BATCH = 50


@dataclass(frozen=True)
class MosaicSettings:
    """How mosaics are made.

    Attributes:
        candidates: real images of a class to consider; all where there are fewer.
        crops: square crops of each candidate, of which the most realistic one is used.
        factor: f; f * f crops are tiled in one image.
        smallest: least share of the area that a crop keeps.
    """

    candidates: int = 300
    crops: int = 5
    factor: int = 2
    smallest: float = 0.08


@dataclass(frozen=True)
class MosaicDraw:
    """The draw for one class: candidates [m], and boxes [m, crops, 4] as in `draw_box`."""

    candidates: Tensor
    boxes: Tensor


def draw_mosaics(
    members: Tensor,
    ipc: int,
    settings: MosaicSettings,
    size: tuple[int, int],
    generator: Generator,
) -> MosaicDraw:
    """Draw the candidates of one class and their crops.

    Args:
        members: [m] indices of the real images of the class.
        ipc: mosaics to make of them.
        settings: how many candidates and crops.
        size: (h, w) of the images.
        generator: random source.

    Raises:
        ValueError: if there are fewer candidates than tiles.
    """
    count, tiles = min(settings.candidates, len(members)), ipc * settings.factor**2
    if count < tiles:
        raise ValueError(
            f"a class has {count} candidates, but {ipc} mosaics of factor {settings.factor} need "
            f"{tiles}; lower ipc or the factor, or allow more candidates"
        )
    candidates = members[torch.randperm(len(members), generator=generator)[:count]]
    boxes = [
        [draw_box(size, generator, settings.smallest, stretch=1.0) for _ in range(settings.crops)]
        for _ in range(count)
    ]
    return MosaicDraw(candidates, torch.tensor(boxes))


def make_mosaics(
    images: Images,
    draw: MosaicDraw,
    ipc: int,
    factor: int,
    loss: Callable[[Tensor], Tensor],
) -> Tensor:
    """The mosaics [ipc, c, h, w] of one class.

    Each candidate is represented by its crop of lowest loss; the ipc * f * f best candidates are
    dealt in order of rank, so that no mosaic gets all the best.

    Args:
        images: [m, c, h, w] real images, which the draw's candidates index.
        draw: from `draw_mosaics`.
        ipc: mosaics.
        factor: f, tiles along a side.
        loss: crops [n, c, h, w] of this class -> [n], lower for the more realistic;
            see `realism_loss`.

    Raises:
        ValueError: if a tile would have less than 2 pixels a side.
    """
    best, losses = [], []
    for index, boxes in zip(
        draw.candidates.split(_CANDIDATE_BATCH),
        draw.boxes.split(_CANDIDATE_BATCH),
        strict=True,
    ):
        crops = _crop_all(images_at(images, index.cpu()), boxes)
        crop_losses = loss(crops.flatten(0, 1)).view(crops.shape[:2])
        least = crop_losses.min(dim=1)
        best.append(crops[torch.arange(len(crops), device=crops.device), least.indices])
        losses.append(least.values)
    order = torch.cat(losses).argsort(stable=True)[: ipc * factor**2]
    dealt = order.view(factor**2, ipc).t().reshape(-1)
    return encode_images(torch.cat(best)[dealt], factor)


def _crop_all(images: Tensor, boxes: Tensor) -> Tensor:
    """Crops [n, crops, c, h, w] of images [n, c, h, w], each of the whole size."""
    size = (images.shape[2], images.shape[3])
    crops = [
        torch.cat([crop_resized(image.unsqueeze(0), tuple(box), size) for box in row.tolist()])
        for image, row in zip(images, boxes, strict=True)
    ]
    return torch.stack(crops)


def realism_loss(logits: Tensor, label: int) -> Tensor:
    """Cross-entropy [n] of logits [n, k] with one class: low where a crop shows that class."""
    labels = torch.full((len(logits),), label, device=logits.device)
    return cross_entropy(logits, labels, reduction="none")
