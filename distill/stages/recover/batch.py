"""One batch of a recovery by itself: what travels to a worker, and what it does there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from distill.data import Preprocess
from distill.errors import DivergedRunError, WorkError
from distill.recipes.tables.committee import CommitteeTable
from distill.recipes.tables.recover import RecoverTable
from distill.run.artefacts import RECOVER_STAGE
from distill.run.context import Context, RunHandle, open_context
from distill.stages.recover.disk import open_starts
from distill.store.tensors import Arrays, from_arrays, load_tensors, save_tensors, to_arrays
from distill.teachers.loading import load_networks
from synth.errors import DivergedError
from synth.recovery import (
    NormStatistics,
    RecoverBatch,
    RecoverProblem,
    RecoverSettings,
    RecoverState,
    RecoverStep,
    SharedView,
    SharedViews,
    Teacher,
    ValidImages,
    class_statistics,
    first_state,
    plan_batches,
    recover_images,
    running_statistics,
)
from synth.updates import Moments


@dataclass(frozen=True, eq=False)
class Shard:
    """A batch to recover, as plain data.

    Attributes:
        number: of the batch.
        members: places in the committee of those that recover it.
        weights: of their votes.
        step: steps taken before.
        state: images, mean and square after them, [b, c, h, w] each; or nothing before the first.
        starts: where the images of a large set start from, for a shard without a state.
    """

    number: int
    members: tuple[int, ...]
    weights: tuple[float, ...]
    step: int
    state: Arrays
    starts: Path | None = None


@dataclass(frozen=True)
class Recovered:
    """A recovered batch: its images [b, c, h, w], and the steps that were taken."""

    images: Tensor
    steps: list[RecoverStep]

    @staticmethod
    def of_arrays(arrays: Arrays, steps: list[RecoverStep]) -> Recovered:
        """A batch as it comes from a worker."""
        return Recovered(from_arrays(arrays)["images"], steps)


class BatchRecovery:
    """The members of a run's committee, ready to recover one batch after another."""

    def __init__(self, context: Context, members: Sequence[nn.Module]) -> None:
        """Take the members of the whole committee, in its order.

        Raises:
            WorkError: if a member has no statistics to compare with.
        """
        self._context, self._members = context, members
        table, _ = recover_tables(context)
        self._batches = planned_batches(context)
        self._statistics: dict[int, Sequence[NormStatistics]] = {}
        for place, spec in eligible(context):
            try:
                self._statistics[place] = _statistics(context, table, members[place])
            except ValueError as error:
                raise WorkError(f"recover: member {spec}: {error}") from None

    def steps(self, shard: Shard) -> Iterator[tuple[RecoverState, RecoverStep]]:
        """The steps of a batch that are left.

        Raises:
            DivergedRunError: if the loss diverges.
        """
        context, (table, _) = self._context, recover_tables(self._context)
        batch = self._batches[shard.number]
        problem = _problem(context, self._teachers(table, shard, batch), batch, shard.number)
        settings = RecoverSettings(
            table.lr, table.bn_weight, table.first_bn, precision=table.precision
        )
        state = self._state(shard, batch)
        networks = [self._members[place] for place, _ in eligible(context)]
        largest = max(len(planned.places) for planned in self._batches)
        try:
            with context.threads(largest, *networks):
                yield from recover_images(state, table.iterations, problem, settings)
        except DivergedError as error:
            raise DivergedRunError(
                f"recover diverged at step {error.step} of batch {shard.number}: {error}"
            ) from None

    def _state(self, shard: Shard, batch: RecoverBatch) -> RecoverState:
        """What a batch goes on from."""
        context = self._context
        if shard.starts is not None:
            starts = open_starts(shard.starts, set_shape(context))
            return first_state(starts[batch.places].to(context.device))
        start = {name: part.to(context.device) for name, part in from_arrays(shard.state).items()}
        return RecoverState(shard.step, start["images"], Moments(start["mean"], start["square"]))

    def _teachers(self, table: RecoverTable, shard: Shard, batch: RecoverBatch) -> list[Teacher]:
        """The members of a batch with the statistics that it is compared with."""
        found = []
        for place, weight in zip(shard.members, shard.weights, strict=True):
            targets = self._statistics[place]
            if table.batches == "within":
                targets = [layer.of_class(batch.call) for layer in targets]
            found.append(Teacher(self._members[place], weight, targets))
        return found


def open_recovery(
    opening: RunHandle,
) -> Callable[[tuple[int, Shard]], tuple[Arrays, list[RecoverStep]]]:
    """What recovers a numbered batch, in another process."""
    context = open_context(opening)
    return partial(_recover, BatchRecovery(context, load_networks(context)))


def _recover(bench: BatchRecovery, job: tuple[int, Shard]) -> tuple[Arrays, list[RecoverStep]]:
    images, steps = {}, []
    for state, step in bench.steps(job[1]):
        images = {"images": state.images}
        steps.append(step)
    return to_arrays(images), steps


def pack_state(state: RecoverState) -> Arrays:
    """A state as plain arrays, without its step."""
    moments = state.moments
    return to_arrays({"images": state.images, "mean": moments.mean, "square": moments.square})


def save_recovered(context: Context, shard: Shard, found: Recovered) -> None:
    """Keep a batch that may have been recovered before its turn."""
    steps = [asdict(step) for step in found.steps]
    save_tensors(kept_file(context, shard.number), {"images": found.images}, steps)


def load_recovered(context: Context, shard: Shard) -> Recovered | None:
    """A batch that was kept, from its first step on; None where there is none."""
    found = load_tensors(kept_file(context, shard.number))
    if found is None:
        return None
    steps = [RecoverStep(**step) for step in found[1]]
    left = [step for step in steps if step.index >= shard.step]
    return Recovered(found[0]["images"].to(context.device), left)


def kept_file(context: Context, number: int) -> Path:
    """Where the recovered images of a batch are kept."""
    return context.checkpoint(RECOVER_STAGE) / f"batch-{number:04d}.safetensors"


def set_shape(context: Context) -> tuple[int, ...]:
    """[n, c, h, w] of the recipe's set."""
    table, _ = recover_tables(context)
    return (context.classes * table.ipc, context.data.channels, *context.data.size)


def recover_tables(context: Context) -> tuple[RecoverTable, CommitteeTable]:
    """[recover] and [committee]; raises WorkError where one is missing."""
    recipe = context.recipe
    if recipe.recover is None or recipe.committee is None:
        raise WorkError("the recipe recovers no images; add the tables [committee] and [recover]")
    return recipe.recover, recipe.committee


def planned_batches(context: Context) -> list[RecoverBatch]:
    """All batches of the recipe's set."""
    table, _ = recover_tables(context)
    return plan_batches(
        context.classes, table.ipc, table.batch_size, within_class=table.batches == "within"
    )


def eligible(context: Context) -> list[tuple[int, str]]:
    """The members that may be drawn: (place in the committee, spec)."""
    table, committee = recover_tables(context)
    pool = table.members or committee.members
    return [(place, spec) for place, spec in enumerate(committee.members) if spec in pool]


def _statistics(
    context: Context, table: RecoverTable, network: nn.Module
) -> Sequence[NormStatistics]:
    if table.bn_weight == 0:
        return ()
    if table.batches == "across":
        return running_statistics(network)
    images, labels = context.split("train")
    return class_statistics(network, images, labels, context.classes)


def _problem(
    context: Context, teachers: Sequence[Teacher], batch: RecoverBatch, number: int
) -> RecoverProblem:
    """What a batch is recovered against; its views depend on its number and the step alone."""
    table, _ = recover_tables(context)
    views = SharedViews(table.view_area, table.flip, table.roll)

    def view(step: int) -> SharedView:
        return views.sample(
            context.data.size, context.generator(RECOVER_STAGE, "view", number, step)
        )

    return RecoverProblem(
        teachers, batch.labels.to(context.device), view, _valid_images(context, table)
    )


def _valid_images(context: Context, table: RecoverTable) -> Callable[[Tensor, Tensor], Tensor]:
    """To the nearest images whose pixels lie in [0, 1]."""
    preprocess = context.preprocess
    if not isinstance(preprocess, Preprocess):
        return lambda images, _: preprocess(preprocess.inverse(images).clamp(0, 1))
    return ValidImages(*preprocess.bounds(context.device), table.background)
