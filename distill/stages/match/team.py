"""Outer steps of matching, by this process or by a team that shares their segments."""

from __future__ import annotations

import datetime
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any

import torch.distributed as distributed

from distill.errors import DivergedRunError, WorkError
from distill.run.artefacts import EXPERTS, MATCH_STAGE
from distill.run.context import Context, RunHandle, handle_of, open_context
from distill.run.engines.protocol import LostError, Rank, Team
from distill.run.progress import Advance
from distill.stages.match.problem import match_problem, outer_steps
from distill.store.experts import ExpertsInfo, read_info
from distill.store.tensors import Arrays, from_arrays, to_arrays
from synth.matching.outer_loop import OuterStep
from synth.matching.ranks import Ranks
from synth.matching.state import MatchState, pack_state, unpack_state

# Teams that may be lost one after another without a state in between.
_RETRIES = 3

# Shares of an outer step take about as long as each other: a process that lets the others wait
# for so long has hung.
_PATIENCE = datetime.timedelta(minutes=30)

# Machines that cannot reach each other are told of sooner: all are ready when they meet.
_MEETING = datetime.timedelta(minutes=2)

Packed = tuple[Arrays, dict[str, int]]

Taken = tuple[MatchState, Sequence[OuterStep]]


def matched(
    context: Context, info: ExpertsInfo, state: MatchState, advance: Advance
) -> Generator[Taken, None, None]:
    """Take the outer steps that are left; yields states, each with the steps that led to it.

    A team gives its state at every checkpoint only, at the end, and where the user asks to stop:
    it may be as large as the set is, many times over. Where it is lost, a new one goes on from the
    last state, and this process where there is room for none.

    Raises:
        DivergedRunError: if the outer loop diverges.
        InterruptedRunError: if a team is lost after the user has asked to stop.
        WorkError: if one team after another is lost.
    """
    table = context.recipe.matching()[1]
    enlist, gpu = partial(open_member, handle_of(context)), context.device.type == "cuda"
    size = 1 if context.crew is not None else table.segments
    losses = 0
    while state.step < table.iterations:
        try:
            with context.engine.team(size, enlist, context.stop.check, gpu=gpu) as team:
                if team is None:
                    yield from _here(context, info, state, advance)
                    return
                context.progress.say(f"{MATCH_STAGE:<10} segments shared by {team.size} processes")
                for taken in _together(context, team, state, advance):
                    state, losses = taken[0], 0
                    yield taken
        except LostError as error:
            # What stops a machine may end the team before this process.
            context.stop.check()
            losses += 1
            if losses > _RETRIES:
                raise WorkError(
                    f"the processes that share {MATCH_STAGE} were lost {losses} times in a row at "
                    f"outer step {state.step} ({error}), perhaps for lack of memory; use fewer "
                    "--workers"
                ) from None
            context.progress.say(
                f"{MATCH_STAGE:<10} {error}; going on from outer step {state.step}"
            )


def _here(
    context: Context, info: ExpertsInfo, state: MatchState, advance: Advance
) -> Iterator[Taken]:
    """Outer steps in this process."""
    table, count = context.recipe.matching()[1], len(state.labels)
    ranks = None if context.crew is None else context.crew.ranks
    problem = match_problem(context, info, count, ranks)
    with context.threads(min(table.batch_size or count, count), problem.network):
        for reached, step in outer_steps(table, problem, state):
            _show(advance, step)
            yield reached, [step]


def _together(context: Context, team: Team, state: MatchState, advance: Advance) -> Iterator[Taken]:
    """Outer steps of a team."""
    table, taken, reached = context.recipe.matching()[1], list[OuterStep](), state.step
    tensors, header = pack_state(state)
    team.ask("join", team.ask("serve")[0], to_arrays(tensors), header)
    try:
        while reached < table.iterations:
            taken.append(team.ask("step")[0])
            _show(advance, taken[-1])
            reached += 1
            due = reached % table.checkpoint_every == 0 or reached == table.iterations
            if due or context.stop.requested:
                yield _state_of(context, team), taken
                taken = []
    except DivergedRunError:
        if taken:
            yield _state_of(context, team), taken
        raise
    except LostError:
        # These steps will be taken again.
        advance(count=-len(taken))
        raise


def _state_of(context: Context, team: Team) -> MatchState:
    arrays, header = team.ask("state")[0]
    return unpack_state(from_arrays(arrays), header, device=context.device)


def _show(advance: Advance, step: OuterStep) -> None:
    advance(f"distance {step.distance:.3f}, student lr {step.student_lr:.4f}")


class Member:
    """A process of a team, with the same state as all others; only the first tells of it."""

    def __init__(self, context: Context, seat: Rank) -> None:
        self._context, self._seat = context, seat
        self._info = read_info(context.run.path / EXPERTS)
        self._store: Any = None
        self._steps: Iterator[tuple[MatchState, OuterStep]] = iter(())
        self._state: MatchState | None = None

    def serve(self) -> tuple[str, int] | None:
        """Where the others find the first one: its machine's address, and a port that is free."""
        if self._seat.rank > 0:
            return None
        self._store = _store((self._seat.host, 0), self._seat.size, serve=True)
        return self._seat.host, self._store.port

    def join(self, first: tuple[str, int], arrays: Arrays, header: dict[str, int]) -> None:
        """Meet the others at the first one; steps are taken from the state of `pack_state` on."""
        seat, device = self._seat, self._context.device
        store = self._store or _store(first, seat.size, serve=False)
        store.set_timeout(_PATIENCE)
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=seat.rank,
            world_size=seat.size,
            timeout=_PATIENCE,
        )
        state = unpack_state(from_arrays(arrays), header, device=device)
        ranks = Ranks(seat.rank, seat.size)
        problem = match_problem(self._context, self._info, len(state.labels), ranks)
        self._steps = outer_steps(self._context.recipe.matching()[1], problem, state)

    def step(self) -> OuterStep | None:
        """Take the next outer step, with all others."""
        self._state, step = next(self._steps)
        return None if self._seat.rank > 0 else step

    def state(self) -> Packed | None:
        """The state that the last step led to, as plain arrays."""
        if self._seat.rank > 0 or self._state is None:
            return None
        tensors, header = pack_state(self._state)
        return to_arrays(tensors), header


def _store(place: tuple[str, int], size: int, *, serve: bool) -> Any:
    """Where the processes of a group meet; port 0 is served on one that is free."""
    return distributed.TCPStore(  # type: ignore[attr-defined]
        *place, size, is_master=serve, timeout=_MEETING, wait_for_workers=False
    )


def open_member(opening: RunHandle, seat: Rank) -> Member:
    """A process of a team, in a process of its own."""
    return Member(open_context(opening), seat)
