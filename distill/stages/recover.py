"""Recover images: they are optimised until the committee recognises them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from distill.context import Context
from distill.data import Preprocess
from distill.errors import DivergedRunError, WorkError
from distill.stages.committee import load_committee, load_members
from distill.stages.mosaics import realistic_mosaics
from distill.stages.recover_checkpoint import Recorder, Unfinished
from distill.stages.synthetic import write_synthetic
from distill.tables import CommitteeTable, RecoverTable
from synth.matching import DivergedError
from synth.recovery import (
    NormStatistics,
    RecoverBatch,
    RecoverProblem,
    RecoverSettings,
    RecoverStep,
    SharedView,
    SharedViews,
    Teacher,
    class_statistics,
    draw_members,
    first_state,
    plan_batches,
    recover_images,
    running_statistics,
)
from synth.synthetic_set import draw_noise, draw_real
from synth.votes import Ballot

STAGE = "recover"


@dataclass(frozen=True)
class Candidate:
    """A member that may be drawn, at `place` in the committee.

    `statistics` has an entry per BatchNorm layer, or is empty.
    """

    place: int
    spec: str
    network: nn.Module
    prior: float
    statistics: Sequence[NormStatistics]


def run_recover(context: Context) -> None:
    """Make set.h5; goes on from the last checkpoint.

    Raises:
        WorkError: if a member has no statistics to compare with.
        DivergedRunError: if the loss diverges; the last checkpoint stays.
    """
    table, _ = _tables(context)
    members, ballot = load_members(context)
    candidates = _candidates(context, members, ballot)
    recorder = Recorder(context, table)
    start = state = recorder.load() or Unfinished(_starting_images(context), 0)
    done = start.steps(table.iterations)
    batches = _batches(context, table)
    progress = context.progress.task(STAGE, len(batches) * table.iterations, done)
    largest = max(len(batch.places) for batch in batches)
    networks = [candidate.network for candidate in candidates]
    with progress as advance, context.threads(largest, *networks):
        try:
            for state, step in _steps(context, (candidates, ballot), recorder, start):
                recorder.add(state, step)
                advance(f"cross-entropy {step.cross_entropy:.3f}, stats {step.statistics:.3f}")
                context.stop.check()
        except DivergedError as error:
            raise DivergedRunError(
                f"recover diverged at step {error.step} of batch {recorder.batch}: {error}"
            ) from None
        finally:
            recorder.flush()
    names = ", ".join(candidate.spec for candidate in candidates)
    write_synthetic(context, state.images, network=names)


def _tables(context: Context) -> tuple[RecoverTable, CommitteeTable]:
    recipe = context.recipe
    if recipe.recover is None or recipe.committee is None:
        raise WorkError("the recipe recovers no images; add the tables [committee] and [recover]")
    return recipe.recover, recipe.committee


def _batches(context: Context, table: RecoverTable) -> list[RecoverBatch]:
    return plan_batches(
        context.classes, table.ipc, table.batch_size, within_class=table.batches == "within"
    )


def _candidates(context: Context, members: Sequence[nn.Module], ballot: Ballot) -> list[Candidate]:
    """The members that may be drawn, with their statistics where these are asked for."""
    table, committee = _tables(context)
    found = []
    for place, (spec, network) in enumerate(zip(committee.members, members, strict=True)):
        if table.members is not None and spec not in table.members:
            continue
        try:
            statistics = _statistics(context, table, network)
        except ValueError as error:
            raise WorkError(f"recover: member {spec}: {error}") from None
        found.append(Candidate(place, spec, network, ballot.scores[place], statistics))
    return found


def _statistics(
    context: Context, table: RecoverTable, network: nn.Module
) -> Sequence[NormStatistics]:
    if table.bn_weight == 0:
        return ()
    if table.batches == "across":
        return running_statistics(network)
    images, labels = context.split("train")
    return class_statistics(network, images, labels, context.classes)


def _starting_images(context: Context) -> Tensor:
    """Images [k * ipc, c, h, w] to start from, in class order."""
    table, _ = _tables(context)
    generator = context.generator(STAGE, "init")

    def real() -> Tensor:
        images, labels = context.split("train")
        chosen = draw_real(labels.cpu(), context.classes, table.ipc, generator)
        return images[chosen.to(images.device)]

    def noise() -> Tensor:
        shape = (context.classes * table.ipc, context.data.channels, *context.data.size)
        return draw_noise(shape, generator).to(context.device)

    starts: dict[str, Callable[[], Tensor]] = {
        "mosaics": lambda: realistic_mosaics(context, load_committee(context), table, STAGE),
        "real": real,
        "noise": noise,
    }
    return starts[table.init]()


def _steps(
    context: Context,
    voters: tuple[Sequence[Candidate], Ballot],
    recorder: Recorder,
    state: Unfinished,
) -> Iterator[tuple[Unfinished, RecoverStep]]:
    """All steps of all batches that are left."""
    table, _ = _tables(context)
    batches = _batches(context, table)
    settings = RecoverSettings(table.lr, table.bn_weight, table.first_bn)
    while state.batch < len(batches):
        batch = batches[state.batch]
        drawn, weights = _draw(context, *voters, batch.call)
        if state.inner is None:
            recorder.begin(state, batch.call, [member.spec for member in drawn], weights)
        problem = _problem(context, _teachers(table, drawn, weights, batch), batch, state.batch)
        start = state.inner or first_state(state.images[batch.places])
        for inner, step in recover_images(start, table.iterations, problem, settings):
            state = replace(state, inner=inner)
            if inner.step == table.iterations:
                images = state.images.clone()
                images[batch.places] = inner.images
                state = Unfinished(images, state.batch + 1)
            yield state, step


def _draw(
    context: Context, candidates: Sequence[Candidate], ballot: Ballot, call: int
) -> tuple[list[Candidate], list[float]]:
    """The members of a call and the weights of their votes."""
    table, _ = _tables(context)
    priors = [candidate.prior for candidate in candidates]
    generator = context.generator(STAGE, "members", call)
    places = draw_members(table.schedule, priors, table.drawn, call, generator)
    drawn = [candidates[place] for place in places]
    weights = ballot.weights(
        table.vote_temperature,
        context.generator(STAGE, "weights", call),
        [candidate.place for candidate in drawn],
    )
    return drawn, weights.tolist()


def _teachers(
    table: RecoverTable,
    drawn: Sequence[Candidate],
    weights: Sequence[float],
    batch: RecoverBatch,
) -> list[Teacher]:
    """The members of a batch with the statistics that it is compared with."""
    within = table.batches == "within"
    found = []
    for member, weight in zip(drawn, weights, strict=True):
        targets = member.statistics
        if within:
            targets = [layer.of_class(batch.call) for layer in targets]
        found.append(Teacher(member.network, weight, targets))
    return found


def _problem(
    context: Context, teachers: Sequence[Teacher], batch: RecoverBatch, number: int
) -> RecoverProblem:
    """What a batch is recovered against; its views depend on its number and the step alone."""
    table, _ = _tables(context)
    views = SharedViews(table.view_area, table.flip, table.roll)

    def view(step: int) -> SharedView:
        return views.sample(context.data.size, context.generator(STAGE, "view", number, step))

    return RecoverProblem(teachers, batch.labels.to(context.device), view, _valid_images(context))


def _valid_images(context: Context) -> Callable[[Tensor], Tensor]:
    """To the nearest images whose pixels lie in [0, 1]."""
    preprocess = context.preprocess
    if not isinstance(preprocess, Preprocess):
        return lambda images: preprocess(preprocess.inverse(images).clamp(0, 1))
    pixel = context.split("train")[0].new_ones(context.data.channels, 1, 1)
    low, high = preprocess(0 * pixel), preprocess(pixel)
    return lambda images: images.clamp(low, high)
