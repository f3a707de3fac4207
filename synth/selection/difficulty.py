"""How difficult real images are for networks that learn them, and choices by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Generator, Tensor

Difficulty = Literal["easy", "middle", "hard", "spread"]


def el2n(logits: Tensor, labels: Tensor) -> Tensor:
    """The Euclidean distances [m] of a network's probabilities from the one-hot classes.

    In [0, sqrt(2)], 0 for an image that is certain and right. Source: Paul et al. 2021, who take
    the mean over networks early in their training.

    Args:
        logits: [m, k].
        labels: [m] classes.
    """
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
    return (logits.softmax(dim=1) - one_hot).norm(dim=1)


def forgetting_counts(right: Iterable[Tensor]) -> Tensor:
    """How often each image was forgotten in a training, int64 [m].

    An image is forgotten when the network was right on it at one look and is wrong at the next.
    One on which it never was right counts as forgotten at every look. Source: Toneva et al. 2019,
    who look whenever an image is in a batch, and rank images that were never learned above all.

    Args:
        right: masks [m] of the images that the network has right, at one look after the other.

    Raises:
        ValueError: without any look.
    """
    before: Tensor | None = None
    counts, learned, looks = torch.zeros(0), torch.zeros(0), 0
    for now in right:
        if before is None:
            counts, learned = torch.zeros_like(now, dtype=torch.int64), torch.zeros_like(now)
        else:
            counts += before & ~now
        before, learned, looks = now, learned | now, looks + 1
    if before is None:
        raise ValueError("there are no epochs to count forgetting over; record more of them")
    return torch.where(learned, counts, looks)


def by_difficulty(
    scores: Tensor, count: int, difficulty: Difficulty, generator: Generator
) -> Tensor:
    """Places [count] of images that are chosen by how difficult they are, the easier ones first.

    Args:
        scores: [n] of the images of one class, larger for the more difficult, n >= count; equal
            ones stand in random order.
        count: how many to choose, without repetition.
        difficulty: "easy" or "hard", the least or the most difficult; "middle", those around the
            median; "spread", one at random from each of `count` equal parts of the order, as in the
            stratified choice of Zheng et al. 2023 (CCS) without its cut of the hardest.
        generator: random source.
    """
    shuffled = torch.randperm(len(scores), generator=generator)
    order = shuffled[scores.cpu()[shuffled].argsort(stable=True)]
    if difficulty == "spread":
        parts = torch.tensor_split(order, count)
        draws = torch.rand(count, generator=generator).tolist()
        return torch.stack(
            [part[int(draw * len(part))] for part, draw in zip(parts, draws, strict=True)]
        )
    spare = len(order) - count
    start = {"easy": 0, "middle": spare // 2, "hard": spare}[difficulty]
    return order[start : start + count]
