"""Match expert trajectories: images, soft labels and student learning rate are learned."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from distill.build import build_gradient, build_update, build_views
from distill.context import Context
from distill.errors import DivergedRunError, InterruptedRunError, WorkError
from distill.ranks import Crew
from distill.stages.experts import FILE as EXPERTS
from distill.stages.experts import window_epochs
from distill.stages.match_checkpoint import Recorder
from distill.stages.starts import starting_state
from distill.stages.synthetic import write_synthetic
from distill.store.experts import ExpertsInfo, read_info, read_snapshots
from distill.tables import MatchTable
from synth.formation import decode
from synth.matching import (
    DivergedError,
    MatchProblem,
    MatchSettings,
    MatchState,
    OuterStep,
    match_trajectories,
)
from synth.parameters import call_with_vector
from synth.segments import Segment, SegmentChoice, SegmentSampler, StartWindow

STAGE = "match"


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
    batch = min(table.batch_size or len(state.labels), len(state.labels))
    problem = _problem(context, info, len(state.labels))
    progress = context.progress.task(STAGE, table.iterations, state.step)
    with progress as advance, context.threads(batch, problem.network):
        try:
            for state, step in _outer_steps(table, problem, start):
                recorder.add(state, step)
                advance(f"distance {step.distance:.3f}, student lr {step.lr:.4f}")
                context.stop.check()
        except DivergedError as error:
            raise DivergedRunError(f"match diverged at outer step {error.step}: {error}") from None
        finally:
            recorder.flush()
    _write(context, state)


def follow_match(context: Context, crew: Crew) -> None:
    """Take part in the matching that the first rank runs and records, from its state on.

    Raises:
        InterruptedRunError: if it stopped.
    """
    if not crew.told():
        return
    table = context.recipe.matching()[1]
    info = read_info(context.run.path / EXPERTS)
    start = crew.same_start(starting_state(context, info, EXPERTS))
    problem = _problem(context, info, len(start.labels))
    try:
        with context.threads(table.batch_size or len(start.labels), problem.network):
            for _ in _outer_steps(table, problem, start):
                pass
    except DivergedError as error:
        raise DivergedRunError(f"match diverged at outer step {error.step}: {error}") from None
    except RuntimeError as error:
        raise InterruptedRunError(f"the first process stopped ({error})") from None


def _outer_steps(
    table: MatchTable, problem: MatchProblem, state: MatchState
) -> Iterator[tuple[MatchState, OuterStep]]:
    learned = table.labels == "learned"
    settings = MatchSettings(
        image_lr=table.image_lr,
        label_lr=table.label_lr if learned else 0.0,
        log_lr_lr=table.log_lr_lr,
        image_rule=build_update(table.optimizer, 0.5),
        label_rule=build_update(table.optimizer, 0.9),
        cosine=table.schedule == "cosine",
        image_average=table.image_average,
        threshold=table.threshold,
        patience=table.patience,
    )
    return match_trajectories(
        state,
        table.iterations,
        problem,
        gradient=build_gradient(table),
        settings=settings,
    )


def _problem(context: Context, info: ExpertsInfo, count: int) -> MatchProblem:
    """What is matched, for a set of `count` images as students see them."""
    table = context.recipe.matching()[1]
    network = context.network(info.network, STAGE)
    views = build_views(context.recipe.data.augmentation, one_per_batch=True)
    window = start_window(table)
    sampler = SegmentSampler(info.count, window, table.inner_steps, table.batch_size, views)

    def choose(step: int) -> list[SegmentChoice]:
        generators = (context.generator(STAGE, step, i) for i in range(table.segments))
        size = context.data.size
        return [sampler.draw(count, size, generator, step) for generator in generators]

    def read(choice: SegmentChoice) -> Segment:
        epochs = (choice.start_epoch, choice.start_epoch + table.span)
        start, target = read_snapshots(context.run.path / EXPERTS, choice.expert, epochs)
        return Segment(start.to(context.device), target.to(context.device))

    def label(segment: Segment, images: Tensor) -> Tensor:
        return call_with_vector(network, info.layout, segment.target, images).detach()

    return MatchProblem(
        network,
        choose,
        read,
        decode=(lambda images: decode(images, table.factor)) if table.factor > 1 else None,
        label=label if table.labels == "target" else None,
        ranks=None if context.crew is None else context.crew.ranks,
    )


def _check_window(table: MatchTable, info: ExpertsInfo) -> None:
    """Refuse a window that asks for epochs the experts' file does not keep, before any step."""
    missing = window_epochs(table) - set(info.kept)
    if missing:
        raise WorkError(
            f"{EXPERTS} keeps no epoch {min(missing)}, which the start window needs; run the stage "
            "experts again"
        )


def start_window(table: MatchTable) -> StartWindow:
    """The start epochs that a recipe asks for."""
    return StartWindow(
        table.min_start_epoch, table.max_start_epoch, table.grow_from, table.grow_steps
    )


def _write(context: Context, state: MatchState) -> None:
    experts, table = context.recipe.matching()
    write_synthetic(
        context,
        state.images,
        network=experts.network,
        learned=state.labels,
        student_lr=float(state.lr),
        factor=table.factor,
    )
