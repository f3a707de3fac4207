"""Divide the segments of an outer step over the processes of a torch.distributed group."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """A process of a group: `rank` of `world`, from 0. The group must have been initialised."""

    rank: int
    world: int

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's contiguous share of `items`, as even as possible.

        Raises:
            ValueError: if there are fewer items than processes.
        """
        if len(items) < self.world:
            raise ValueError(
                f"an outer step has {len(items)} segment(s) for {self.world} processes; raise "
                "match.segments to at least one a process, or start fewer"
            )
        bounds = [len(items) * rank // self.world for rank in (self.rank, self.rank + 1)]
        return items[bounds[0] : bounds[1]]


def mean_of(parts: Sequence[Sequence[Tensor]], count: int, ranks: Ranks | None) -> list[Tensor]:
    """The mean of the tensors of `count` items, of which each rank holds some.

    Summed in the order of the items, rank after rank, so that the mean is bitwise identical for
    any number of ranks. A rank receives and sends the bytes of one item twice.

    Args:
        parts: of each item that this rank holds (at least one), its tensors: the same shapes on
            all ranks.
        count: items of all ranks together.
        ranks: of this process; None if it holds all items.

    Returns:
        The mean of each tensor over all items, on every rank.
    """
    flat = [torch.cat([value.flatten() for value in values]) for values in parts]
    last = 0 if ranks is None else ranks.world - 1
    if ranks is not None and ranks.rank > 0:
        before = torch.empty_like(flat[0])
        torch.distributed.recv(before, ranks.rank - 1)
        flat.insert(0, before)
    total = functools.reduce(torch.add, flat)
    if ranks is not None:
        if ranks.rank < last:
            torch.distributed.send(total, ranks.rank + 1)
        torch.distributed.broadcast(total, last)
    means = torch.split(total / count, [value.numel() for value in parts[0]])
    return [mean.view_as(value) for mean, value in zip(means, parts[0], strict=True)]
