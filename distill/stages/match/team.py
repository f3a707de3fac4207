"""Outer steps of matching, by this process or by a team that shares their segments."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial

from distill.errors import DivergedRunError, WorkError
from distill.recipes.tables.match import MatchTable
from distill.run.artefacts import MATCH_STAGE
from distill.run.context import Context, RunHandle, handle_of, open_context
from distill.run.engines.process_group import Member
from distill.run.engines.protocol import LostError, Rank, Team
from distill.stages.match.problem import outer_steps
from distill.store.tensors import from_arrays, to_arrays
from synth.matching.outer_loop import OuterStep
from synth.matching.state import MatchState, pack_state, unpack_state

# Teams that may be lost one after another without a state in between.
_RETRIES = 3

Taken = tuple[MatchState, Sequence[OuterStep]]


def matched(context: Context, table: MatchTable, state: MatchState) -> Generator[Taken, None, None]:
    """Take the outer steps that are left; yields states, each with the steps that led to it.

    A team gives its state at every checkpoint only, at the end, and where the user asks to stop:
    it may be as large as the set is, many times over. Where it is lost, a new one goes on from the
    last state, and this process where there is room for none.

    Raises:
        DivergedRunError: if the outer loop diverges.
        InterruptedRunError: if a team is lost after the user has asked to stop.
        WorkError: if one team after another is lost.
    """
    member, gpu = partial(_open_member, handle_of(context)), context.device.type == "cuda"
    ranks = None if context.group is None else context.group.ranks
    size = table.segments if ranks is None else 1
    losses = 0
    while state.step < table.iterations:
        try:
            with context.engine.team(size, member, context.stop.check, gpu=gpu) as team:
                if team is None:
                    for reached, step in outer_steps(context, ranks, state):
                        _show(context, step)
                        yield reached, [step]
                    return
                context.progress.say(f"{MATCH_STAGE:<10} segments shared by {team.size} processes")
                for taken in _together(context, table, team, state):
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


def _together(
    context: Context, table: MatchTable, team: Team, state: MatchState
) -> Iterator[Taken]:
    """Outer steps of a team."""
    taken, reached = list[OuterStep](), state.step
    tensors, header = pack_state(state)
    team.ask("join", team.ask("serve")[0], to_arrays(tensors), header)
    try:
        while reached < table.iterations:
            taken.append(team.ask("step")[0])
            _show(context, taken[-1])
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
        context.progress.advance(count=-len(taken))
        raise


def _state_of(context: Context, team: Team) -> MatchState:
    arrays, header = team.ask("state")[0]
    return unpack_state(from_arrays(arrays), header, device=context.device)


def _show(context: Context, step: OuterStep) -> None:
    measured = {
        "distance": step.distance,
        "features": step.features,
        "cross-entropy": step.entropy,
    }
    words = [f"{name} {value:.3f}" for name, value in measured.items() if value is not None]
    context.progress.advance(f"{', '.join(words)}, student lr {step.student_lr:.4f}")


def _open_member(handle: RunHandle, rank: Rank) -> Member:
    """A process of a team, in a process of its own."""
    context = open_context(handle)
    return Member(rank, context.device, partial(outer_steps, context))
