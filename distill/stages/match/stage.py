"""Match expert trajectories: images, soft labels and student learning rate are learned."""

from __future__ import annotations

from contextlib import closing

from distill.errors import InterruptedRunError, WorkError
from distill.recipes.recipe import window_epochs
from distill.recipes.stages import STAGES
from distill.recipes.tables.match import MatchTable
from distill.run.artefacts import EXPERTS, MATCH_STAGE
from distill.run.context import Context
from distill.run.engines.torchrun import ProcessGroup
from distill.stages.match.checkpoint import Recorder
from distill.stages.match.problem import match_problem, outer_steps
from distill.stages.match.start import starting_state
from distill.stages.match.team import matched
from distill.stages.match.units import match_units
from distill.stages.stage import Stage, set_parts
from distill.stages.write_set import write_synthetic
from distill.store.experts import ExpertsInfo, read_info
from synth.matching.state import MatchState


def run_match(context: Context) -> None:
    """Make set.h5; goes on from the last checkpoint.

    Raises:
        DivergedRunError: if the outer loop diverges; the last checkpoint stays.
    """
    table = context.recipe.matching()[1]
    info = read_info(context.run.path / EXPERTS)
    _check_window(table, info)
    recorder = Recorder(context)
    start = state = recorder.load() or starting_state(context, info, EXPERTS)
    if context.crew is not None:
        context.crew.tell(go=True)
        start = state = context.crew.same_start(start)
    progress = context.progress.task(MATCH_STAGE, table.iterations, state.step)
    with progress as advance, closing(matched(context, info, start, advance)) as states:
        try:
            for state, steps in states:
                recorder.add(state, steps)
                context.stop.check()
        finally:
            recorder.flush()
    _write(context, state)


def follow_match(context: Context, crew: ProcessGroup) -> None:
    """Take part in the matching that the first rank runs and records, from its state on.

    Raises:
        InterruptedRunError: if it stopped.
    """
    if not crew.told():
        return
    table = context.recipe.matching()[1]
    info = read_info(context.run.path / EXPERTS)
    start = crew.same_start(starting_state(context, info, EXPERTS))
    problem = match_problem(context, info, len(start.labels), crew.ranks)
    try:
        with context.threads(table.batch_size or len(start.labels), problem.network):
            for _ in outer_steps(table, problem, start):
                pass
    except RuntimeError as error:
        raise InterruptedRunError(f"the first process stopped ({error})") from None


def _check_window(table: MatchTable, info: ExpertsInfo) -> None:
    """Refuse a window that asks for epochs the experts' file does not keep, before any step."""
    missing = window_epochs(table) - set(info.kept)
    if missing:
        raise WorkError(
            f"{EXPERTS} keeps no epoch {min(missing)}, which the start window needs; run the stage "
            "experts again"
        )


def _write(context: Context, state: MatchState) -> None:
    experts, table = context.recipe.matching()
    write_synthetic(
        context,
        state.images,
        network=experts.network,
        learned=state.labels,
        student_lr=float(state.student_lr),
        factor=table.factor,
    )


STAGE = Stage(
    STAGES[MATCH_STAGE],
    run_match,
    set_parts("images", "images", "hard", "labels/learned", attributes=True),
    match_units,
    splits=("train",),
)
