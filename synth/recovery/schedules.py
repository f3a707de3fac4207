"""Which images are recovered together, and by which members of the committee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb

import torch
from torch import Generator, Tensor

from synth.training.batches import split_batches

# (priors, members of a call, number of the call, generator) -> places of its members in `priors`.
Schedule = Callable[[Sequence[float], int, int, Generator], tuple[int, ...]]


def draw_members(
    schedule: Schedule, priors: Sequence[float], count: int, call: int, generator: Generator
) -> tuple[int, ...]:
    """The members that recover the images of one call.

    Members stay the same for a whole call, which is one IPC index (image number k of every class),
    and are not drawn at every step. Source: CV-DD.

    Args:
        schedule: `drawn_anew`, `every_set_in_turn` or `largest_priors`.
        priors: how good each member is.
        count: members of a call.
        call: its number, from 0.
        generator: for a schedule that draws.

    Returns:
        Distinct indices into `priors`.

    Raises:
        ValueError: if `count` is below 1 or above the number of members.
    """
    members = len(priors)
    if not 1 <= count <= members:
        raise ValueError(
            f"the schedule asks for {count} members at once, but {members} may be drawn; ask for "
            f"1 to {members}, or add members"
        )
    return schedule(priors, count, call, generator)


def drawn_anew(
    priors: Sequence[float], count: int, call: int, generator: Generator
) -> tuple[int, ...]:
    """Members drawn without replacement, anew for each call. Source: CV-DD."""
    return tuple(torch.randperm(len(priors), generator=generator)[:count].tolist())


def every_set_in_turn(
    priors: Sequence[float], count: int, call: int, generator: Generator
) -> tuple[int, ...]:
    """Every set of `count` members in turn, and again from the first."""
    place = call % comb(len(priors), count)
    return next(islice(combinations(range(len(priors)), count), place, place + 1))


def largest_priors(
    priors: Sequence[float], count: int, call: int, generator: Generator
) -> tuple[int, ...]:
    """The members of the largest priors, the same for every call."""
    ranked = sorted(range(len(priors)), key=lambda member: -priors[member])
    return tuple(sorted(ranked[:count]))


@dataclass(frozen=True)
class RecoverBatch:
    """Images that are recovered together.

    Attributes:
        call: number of the call, for which members are drawn once.
        places: [b] indices of the images in the set, which is in class order.
        labels: [b] their classes.
    """

    call: int
    places: Tensor
    labels: Tensor


def plan_batches(
    classes: int, ipc: int, batch_size: int | None, *, within_class: bool
) -> list[RecoverBatch]:
    """All batches of a set of `ipc` images of each class.

    Args:
        classes: k.
        ipc: images per class.
        batch_size: images of a batch at most; None for all of a call.
        within_class: a call is one class with all its images (LPLD), instead of one IPC index
            with an image of each class (SRe2L, CV-DD).
    """
    places = torch.arange(classes * ipc).view(classes, ipc)
    calls = places if within_class else places.t()
    return [
        RecoverBatch(call, row[part], row[part] // ipc)
        for call, row in enumerate(calls)
        for part in split_batches(len(row), batch_size or len(row))
    ]
