"""Segments of an outer step over the processes of a torch.distributed group."""

from __future__ import annotations

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
        """Those of `items` that are this process's to do.

        Raises:
            ValueError: if there are fewer items than processes.
        """
        if len(items) < self.world:
            raise ValueError(
                f"an outer step has {len(items)} segment(s) for {self.world} processes; raise "
                "match.segments to at least one a process, or start fewer"
            )
        return items[self.rank :: self.world]

    def last_owner(self, count: int) -> int:
        """The rank that has the last of `count` items."""
        return (count - 1) % self.world


def average_over_ranks(parts: Sequence[Sequence[Tensor]], count: int) -> list[Tensor]:
    """The mean of the tensors of `count` items, of which each rank holds some.

    All are added up in one message, so a rank sends and receives about twice the bytes of one
    item, however many ranks there are. Every rank gets the same bits.

    Args:
        parts: of each item that this rank holds (at least one), its tensors: the same shapes on
            all ranks.
        count: items of all ranks together.

    Returns:
        The mean of each tensor over all items.
    """
    sums = [torch.stack(list(values)).sum(dim=0) for values in zip(*parts, strict=True)]
    message = torch.cat([value.flatten() for value in sums])
    torch.distributed.all_reduce(message)
    means = torch.split(message / count, [value.numel() for value in sums])
    return [mean.view_as(value) for mean, value in zip(means, sums, strict=True)]
