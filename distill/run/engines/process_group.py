"""Processes that share the segments of matching: those of torchrun, and those of an engine."""

from __future__ import annotations

import datetime
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed

from distill.errors import RecipeError
from distill.run.engines.protocol import Rank
from distill.store.tensors import Arrays, from_arrays, to_arrays
from synth.matching.outer_loop import OuterStep
from synth.matching.ranks import Ranks
from synth.matching.state import MatchState, pack_state, unpack_state

# Followers wait while the leader reads its data and the state that it goes on from.
_LEADER_TIMEOUT = datetime.timedelta(hours=6)

# Shares of an outer step take about as long as each other: a process that lets the others wait
# for so long has hung.
_STEP_TIMEOUT = datetime.timedelta(minutes=30)

# Machines that cannot reach each other are told of sooner: all are ready when they meet.
_MEETING_TIMEOUT = datetime.timedelta(minutes=2)

# Which process this is, and the state to start from -> each state with the step that led to it.
Steps = Callable[[Ranks, MatchState], Iterator[tuple[MatchState, OuterStep]]]


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
        sent = dict(zip(names, numbers.tolist(), strict=True))
        return unpack_state(received, sent, device=self._device)


@contextmanager
def joined(device: torch.device, stages: Sequence[str]) -> Iterator[ProcessGroup | None]:
    """The group that torchrun started, over gloo on the CPU and nccl on CUDA; None without it.

    Raises:
        RecipeError: for stages that are not shared, or variables that torchrun did not set.
    """
    if _number("WORLD_SIZE", 1) == 1:
        yield None
        return
    if list(stages) != ["match"]:
        raise RecipeError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, which share the stage match "
            "alone; run the others without it, then `torchrun -m distill match`"
        )
    if device.type == "cuda":
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    _begin_group(device, timeout=_LEADER_TIMEOUT)
    group = ProcessGroup(Ranks(distributed.get_rank(), distributed.get_world_size()), device)
    try:
        yield group
    finally:
        if group.leads:
            # A match that had begun is over; one that was skipped or refused is called off.
            group.tell(go=False)
        distributed.destroy_process_group()


def _number(variable: str, default: int) -> int:
    """A variable of torchrun's."""
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise RecipeError(
            f"the variable {variable} is {text!r}, but torchrun sets a whole number; unset it, or "
            "use torchrun"
        )
    return int(text)


class Member:
    """A process of a team, with the same state as all others; only the first tells of it."""

    def __init__(self, rank: Rank, device: torch.device, steps: Steps) -> None:
        self._rank, self._device, self._begin = rank, device, steps
        self._store: Any = None
        self._steps: Iterator[tuple[MatchState, OuterStep]] = iter(())
        self._state: MatchState | None = None

    def serve(self) -> tuple[str, int] | None:
        """Where the others find the first one: its machine's address, and a port that is free."""
        if self._rank.rank > 0:
            return None
        self._store = _store((self._rank.host, 0), self._rank.size, serve=True)
        return self._rank.host, self._store.port

    def join(self, first: tuple[str, int], arrays: Arrays, header: dict[str, int]) -> None:
        """Meet the others at the first one; steps are taken from the state of `pack_state` on."""
        rank, size = self._rank.rank, self._rank.size
        store = self._store or _store(first, size, serve=False)
        store.set_timeout(_STEP_TIMEOUT)
        _begin_group(self._device, store=store, rank=rank, world_size=size, timeout=_STEP_TIMEOUT)
        state = unpack_state(from_arrays(arrays), header, device=self._device)
        self._steps = self._begin(Ranks(rank, size), state)

    def step(self) -> OuterStep | None:
        """Take the next outer step, with all others."""
        self._state, step = next(self._steps)
        return None if self._rank.rank > 0 else step

    def state(self) -> tuple[Arrays, dict[str, int]] | None:
        """The state that the last step led to, as plain arrays."""
        if self._rank.rank > 0 or self._state is None:
            return None
        tensors, header = pack_state(self._state)
        return to_arrays(tensors), header


def _begin_group(device: torch.device, **how: Any) -> None:
    """Begin the group of this process, over gloo on the CPU and nccl on CUDA."""
    # Its functions take the group of the time of their import as a default. Were it imported
    # later, as torch does when it first compiles or maps, they would keep the group past its
    # destruction, and a thread of gloo that outlives Python aborts the process.
    importlib.import_module("torch.distributed.nn")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", **how)


def _store(place: tuple[str, int], size: int, *, serve: bool) -> Any:
    """Where the processes of a group meet; port 0 is served on one that is free."""
    return distributed.TCPStore(  # type: ignore[attr-defined]
        *place, size, is_master=serve, timeout=_MEETING_TIMEOUT, wait_for_workers=False
    )
