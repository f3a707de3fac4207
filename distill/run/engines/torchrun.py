"""Processes that torchrun has started to share the stage match: one leads, the others follow."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as distributed

from distill.errors import RecipeError
from synth.matching.ranks import Ranks
from synth.matching.state import MatchState, pack_state, unpack_state

# Followers wait while the leader reads its data and the state that it goes on from.
_PATIENCE = datetime.timedelta(hours=6)


class ProcessGroup:
    """The processes of a group, seen from one of them.

    Attributes:
        ranks: which of them this is.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self.ranks = ranks
        self._device = device
        self._told = False

    @property
    def leads(self) -> bool:
        """Whether this is the process that keeps the run's folder."""
        return self.ranks.rank == 0

    def tell(self, *, go: bool) -> None:
        """Called by the leader: whether there is anything to match. Only the first word counts."""
        if not self._told:
            self._told = True
            distributed.broadcast(torch.tensor([int(go)], device=self._device), 0)

    def told(self) -> bool:
        """Called once by each follower: what the leader tells."""
        word = torch.zeros(1, dtype=torch.int64, device=self._device)
        distributed.broadcast(word, 0)
        return bool(word)

    def same_start(self, state: MatchState) -> MatchState:
        """The leader's state on every rank; `state` gives the shapes."""
        tensors, header = pack_state(state)
        names = sorted(header)
        numbers = torch.tensor([header[name] for name in names], device=self._device)
        distributed.broadcast(numbers, 0)
        received = {name: tensors[name].detach().contiguous().clone() for name in sorted(tensors)}
        for tensor in received.values():
            distributed.broadcast(tensor, 0)
        found = dict(zip(names, numbers.tolist(), strict=True))
        return unpack_state(received, found, device=self._device)


@contextmanager
def joined(device: torch.device, stages: Sequence[str]) -> Iterator[ProcessGroup | None]:
    """The group that torchrun started, over gloo on the CPU and nccl on CUDA; None without it.

    Raises:
        RecipeError: for stages that are not shared.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    if list(stages) != ["match"]:
        raise RecipeError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, which share the stage match "
            "alone; run the others without it, then `torchrun -m distill match`"
        )
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    crew = ProcessGroup(Ranks(distributed.get_rank(), distributed.get_world_size()), device)
    try:
        yield crew
    finally:
        if crew.leads:
            # A match that had begun is over; one that was skipped or refused is called off.
            crew.tell(go=False)
        distributed.destroy_process_group()
