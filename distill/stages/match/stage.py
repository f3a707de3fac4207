"""Match expert trajectories: images, soft labels and student learning rate are learned."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from torch import Tensor

from distill.errors import InterruptedRunError, WorkError
from distill.recipes.schema import Recipe, window_epochs
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.match import MatchTable
from distill.run.artefacts import EXPERTS, MATCH_STAGE
from distill.run.context import Context
from distill.run.engines.process_group import ProcessGroup
from distill.stages.budget import (
    coded_images,
    image_budget,
    kept_network_inputs,
    kept_network_keys,
    pack_within,
)
from distill.stages.match.problem import outer_steps
from distill.stages.match.start import starting_state
from distill.stages.match.taught import taught_inputs, taught_keys, view_labels
from distill.stages.match.team import matched
from distill.stages.match.units import match_units
from distill.stages.stage import Stage, made_images
from distill.stages.write_set import write_synthetic
from distill.store.experts import ExpertsInfo, read_info
from synth.matching.outer_loop import OuterStep
from synth.matching.state import MatchState, pack_state, unpack_state


def run_match(context: Context, table: MatchTable) -> None:
    """Make set.h5; goes on from the last checkpoint.

    Raises:
        DivergedRunError: if the outer loop diverges; the last checkpoint stays.
    """
    info = read_info(context.run.path / EXPERTS)
    _check_window(table, info)
    # Before the processes of a team, of which none writes the scores of a measured vote.
    view_labels(context, table)
    checkpoint = context.checkpoint(MATCH_STAGE)
    saved = checkpoint.load()
    state = unpack_state(*saved, device=context.device) if saved else starting_state(context, table)
    if context.group is not None:
        context.group.tell(go=True)
        state = context.group.same_start(state)
    kept = state.step
    progress = context.progress.task(MATCH_STAGE, table.iterations, state.step)
    with progress, closing(matched(context, table, state)) as states:
        try:
            for state, steps in states:
                checkpoint.log(*map(_row, steps))
                if state.step % table.checkpoint_every == 0:
                    checkpoint.save(*pack_state(state))
                    kept = state.step
                context.stop.check()
        finally:
            if state.step > kept:
                checkpoint.save(*pack_state(state))
    images, payload = _finished(context, table, state)
    write_synthetic(
        context,
        images,
        network=info.network,
        learned=state.labels if table.keeps_labels else None,
        student_lr=float(state.student_lr),
        factor=table.factor,
        coded=payload,
    )


def _finished(
    context: Context, table: MatchTable, state: MatchState
) -> tuple[Tensor, bytes | None]:
    """The stored images, and their bytes where they are coded; within the budget.

    Raises:
        WorkError: if they cannot be made to fit.
    """
    coded, room = coded_images(context, table), image_budget(context, table)
    if coded is None:
        return state.images, None
    before = len(coded.pack(state.images))
    parameters, payload = pack_within(coded, state.images, room)
    if len(payload) < before:
        context.progress.say(
            f"{MATCH_STAGE:<10} coded images trimmed from {before:,} to {len(payload):,} bytes"
        )
    return coded.stored(parameters), payload


def _row(step: OuterStep) -> dict[str, float | bool]:
    """The metrics of an outer step."""
    found = {
        "distance": step.distance,
        "student_lr": step.student_lr,
        "applied": step.applied,
        "bits": step.bits,
        "multiplier": step.multiplier,
        "features": step.features,
        "cross_entropy": step.entropy,
    }
    known = {name: value for name, value in found.items() if value is not None}
    return {"step": step.index, **known}


def follow_match(context: Context, group: ProcessGroup) -> None:
    """Take part in the matching that the first rank runs and records, from its state on.

    Raises:
        InterruptedRunError: if it stopped.
    """
    if not group.told():
        return
    start = group.same_start(starting_state(context, context.recipe.table("match")))
    try:
        for _ in outer_steps(context, group.ranks, start):
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


def _networks(recipe: Recipe) -> tuple[str, ...]:
    """The stages whose networks label views while matching, or are kept within the budget."""
    return tuple(dict.fromkeys((*taught_inputs(recipe), *kept_network_inputs(recipe))))


def _network_keys(recipe: Recipe) -> Any:
    taught, kept = taught_keys(recipe), kept_network_keys(recipe)
    return taught if kept is None else {"taught": taught, "kept": kept}


STAGE = Stage(
    STAGE_ENTRIES[MATCH_STAGE],
    run_match,
    made_images,
    match_units,
    splits=("train",),
    also_inputs=_networks,
    derived=_network_keys,
)
