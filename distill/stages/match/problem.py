"""What trajectory matching matches, and the outer steps that it takes on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor

from distill.errors import DivergedRunError
from distill.recipes.build import build_gradient, build_update, build_views
from distill.recipes.tables.match import MatchTable
from distill.run.artefacts import EXPERTS, MATCH_STAGE
from distill.run.context import Context
from distill.sets.coded_images import CodedImages
from distill.stages.budget import coded_images, image_budget, rate_within
from distill.stages.match.features import feature_sampler, feature_term
from distill.stages.match.taught import view_labels
from distill.store.experts import ExpertsInfo, read_info, read_snapshots
from synth.errors import DivergedError
from synth.formation import decode_images
from synth.matching.mean_gradient import MatchProblem
from synth.matching.outer_loop import MatchSettings, OuterStep, match_trajectories
from synth.matching.ranks import Ranks
from synth.matching.rate import Rate
from synth.matching.segments import Segment, SegmentChoice, SegmentSampler, StartWindow
from synth.matching.state import MatchState
from synth.parameters import call_with_vector, parameter_layout


def outer_steps(
    context: Context, ranks: Ranks | None, state: MatchState
) -> Iterator[tuple[MatchState, OuterStep]]:
    """The outer steps that a recipe's [match] table asks for, from `state` on.

    Args:
        context: of a run with experts.h5.
        ranks: processes that share the segments; None for this one alone.
        state: where the steps start.

    Raises:
        DivergedRunError: if the outer loop diverges.
    """
    table: MatchTable = context.recipe.table("match")
    count = len(state.labels)
    problem = match_problem(context, table, count, ranks)
    learned = table.labels == "learned"
    settings = MatchSettings(
        image_lr=table.image_lr,
        label_lr=table.label_lr if learned else 0.0,
        student_lr_lr=table.student_lr_lr,
        image_rule=build_update(table.optimizer, 0.5),
        label_rule=build_update(table.optimizer, 0.9),
        cosine=table.schedule == "cosine",
        image_average=table.image_average,
        threshold=table.threshold,
        patience=table.patience,
    )
    try:
        with context.threads(_images_at_once(table, count), problem.network):
            yield from match_trajectories(
                state,
                table.iterations,
                problem,
                gradient=build_gradient(table),
                settings=settings,
            )
    except DivergedError as error:
        raise DivergedRunError(f"match diverged at outer step {error.step}: {error}") from None


def match_problem(
    context: Context, table: MatchTable, count: int, ranks: Ranks | None
) -> MatchProblem:
    """What is matched, for a set of `count` images as students see them.

    Args:
        context: of a run with experts.h5.
        table: [match] of its recipe.
        count: images of the set.
        ranks: processes that share the segments; None for this one alone.
    """
    info = read_info(context.run.path / EXPERTS)
    networks = [context.network(own.network, MATCH_STAGE) for own in info.networks]
    samplers = _samplers(context, table, info)
    features = feature_sampler(context, table, count)

    def choose(step: int) -> list[SegmentChoice]:
        found = []
        for segment in range(table.segments):
            # Networks take turns, over the segments of a step and from step to step.
            sampler = samplers[(step * table.segments + segment) % len(samplers)]
            generator = context.generator(MATCH_STAGE, step, segment)
            choice = sampler.draw(count, context.data.size, generator, step)
            if features is not None:
                choice = replace(choice, features=features.draw(context.data.size, generator))
            found.append(choice)
        return found

    def read(choice: SegmentChoice) -> Segment:
        epochs = (choice.start_epoch, choice.start_epoch + table.span)
        start, target = read_snapshots(context.run.path / EXPERTS, choice.expert, epochs)
        network = networks[choice.network]
        return Segment(start.to(context.device), target.to(context.device), network)

    def label(segment: Segment, images: Tensor) -> Tensor:
        network = segment.network or networks[0]
        return call_with_vector(network, parameter_layout(network), segment.target, images).detach()

    coded = coded_images(context, table)
    return MatchProblem(
        networks[0],
        choose,
        read,
        decode=_decode(table, coded),
        label=label if table.labels == "target" else None,
        view_labels=view_labels(context, table),
        ranks=ranks,
        rate=_rate(context, table, coded),
        features=feature_term(context, table),
    )


def _samplers(context: Context, table: MatchTable, info: ExpertsInfo) -> list[SegmentSampler]:
    """A sampler of segments for each network of the experts."""
    views = build_views(context.recipe.data.augmentation, one_per_batch=True)
    window = start_window(table)
    return [
        SegmentSampler(
            len(own.experts),
            window,
            table.inner_steps,
            table.batch_size,
            views,
            own.experts.start,
            network=index,
        )
        for index, own in enumerate(info.networks)
    ]


def _images_at_once(table: MatchTable, count: int) -> int:
    """Images of most passes through a network: of an inner step, or the real ones of a class."""
    return min(table.batch_size or count, count) if table.matches_parameters else table.real_batch


def _decode(table: MatchTable, coded: CodedImages | None) -> Callable[[Tensor], Tensor] | None:
    """From what is learned to the images that students see; None where they are the same."""
    if coded is not None:
        return coded.seen
    return partial(decode_images, factor=table.factor) if table.factor > 1 else None


def _rate(context: Context, table: MatchTable, coded: CodedImages | None) -> Rate | None:
    room = image_budget(context, table)
    if coded is None or room is None:
        return None
    return rate_within(coded, room)


def start_window(table: MatchTable) -> StartWindow:
    """The start epochs that a recipe asks for."""
    return StartWindow(
        table.min_start_epoch, table.max_start_epoch, table.grow_from, table.grow_steps
    )
