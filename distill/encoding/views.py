"""The views of labelled images, drawn again from the seed that drew them first."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.build import generator_for
from synth.augment import Augmentation
from synth.relabel import StoredVotes, draw_views

Size = tuple[int, int]
# What the generators of relabelled views are keyed by; see `distill.stages.relabel`.
RELABEL = "relabel"


def seeded_views(
    seed: int, epochs: int, images: int, size: Size, families: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Order [e, n] and float16 views [e, n, v] of all epochs, as the stage relabel draws them."""
    drawn = []
    for epoch in range(epochs):
        generator = generator_for(seed, RELABEL, epoch)
        ids, view = draw_views(images, size, Augmentation(families), generator)
        drawn.append((ids, view.to_tensor(images).half()))
    ids, views = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    return ids, views


def seed_gives(votes: StoredVotes, seed: int, size: Size) -> bool:
    """Whether a seed draws the views of these labels, so that they need not be stored."""
    epochs, images = votes.ids.shape
    ids, views = seeded_views(seed, epochs, images, size, votes.families)
    return torch.equal(ids, votes.ids.long()) and torch.equal(views, votes.views)
