"""The views of labelled images, drawn again from the seed that drew them first."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.store.voted import ViewPlan
from synth.relabel import StoredVotes

Size = tuple[int, int]


def seeded_views(
    seed: int, epochs: int, images: int, size: Size, families: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Order [e, n] and float16 views [e, n, v] of all epochs, as the stage relabel draws them."""
    ids, views, _ = ViewPlan(images, size, families, images, "none").drawn(seed, epochs)
    return ids, views


def seed_gives(votes: StoredVotes, seed: int, size: Size) -> bool:
    """Whether a seed draws the views of these labels, so that they need not be stored."""
    epochs, images = votes.ids.shape
    ids, views = seeded_views(seed, epochs, images, size, votes.families)
    return torch.equal(ids, votes.ids.long()) and torch.equal(views, votes.views)
