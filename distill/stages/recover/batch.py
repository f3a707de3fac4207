"""Recovery of one batch of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from distill.data import Preprocess
from distill.errors import DivergedRunError
from distill.recipes.tables.recover import RecoverTable
from distill.run.artefacts import RECOVER_STAGE
from distill.run.checkpoints import CheckpointFile
from distill.run.context import Context
from distill.stages.recover.aims import MemberAims
from distill.stages.recover.blends import make_blending
from distill.stages.recover.disk import IMAGES, open_starts
from distill.stages.recover.recipe import (
    eligible,
    planned_batches,
    recover_table,
    set_shape,
)
from distill.store.tensors import Arrays, to_arrays
from distill.teachers.loading import load_networks
from synth.errors import DivergedError
from synth.recovery import (
    RecoverBatch,
    RecoverProblem,
    RecoverSettings,
    RecoverState,
    RecoverStep,
    SharedView,
    SharedViews,
    Teacher,
    ValidImages,
    first_state,
    recover_images,
)
from synth.updates import Moments


@dataclass(frozen=True)
class DrawnMembers:
    """The members that recover a batch, as plain data.

    Attributes:
        members: their places in the committee.
        weights: of their votes.
    """

    members: tuple[int, ...]
    weights: tuple[float, ...]


def recover_batch(
    drawn: Sequence[DrawnMembers], context: Context, number: int
) -> tuple[Arrays, list[dict[str, Any]]]:
    """Recover batch `number`; returns its images [b, c, h, w] and the metrics of its steps.

    An interrupted batch is resumed here; a worker saves no state of an unfinished one.
    """
    table = recover_table(context)
    recovery = context.once("recovery", lambda: BatchRecovery(context, load_networks(context)))
    unfinished = context.checkpoint(RECOVER_STAGE).part("unfinished")
    state, steps = recovery.start(number, unfinished)
    context.progress.advance(count=state.step)
    try:
        for reached, step in recovery.steps(drawn[number], number, state):
            state = reached
            steps.append(asdict(step))
            if state.step % table.checkpoint_every == 0:
                _keep(unfinished, number, state, steps)
            note = f"cross-entropy {step.cross_entropy:.3f}, stats {step.statistics:.3f}"
            context.progress.advance(note)
            context.stop.check()
    except BaseException:
        _keep(unfinished, number, state, steps)
        raise
    return to_arrays({IMAGES: state.images}), steps


def _keep(
    part: CheckpointFile, number: int, state: RecoverState, steps: Sequence[dict[str, Any]]
) -> None:
    moments = state.moments
    tensors = {IMAGES: state.images, "mean": moments.mean, "square": moments.square}
    part.save(tensors, {"number": number, "step": state.step, "steps": steps})


class BatchRecovery:
    """Recovers batches by the members of a run's committee."""

    def __init__(self, context: Context, members: Sequence[nn.Module]) -> None:
        """Take the members of the whole committee, in its order.

        Raises:
            WorkError: if a member has no statistics to compare with.
        """
        self._context, self._members = context, members
        self._batches = planned_batches(context)
        self._aims = MemberAims(context, members)

    def start(self, number: int, part: CheckpointFile) -> tuple[RecoverState, list[dict[str, Any]]]:
        """The state that a batch resumes from, and the metrics of the steps before it."""
        context, saved = self._context, part.load()
        if saved is None or saved[1]["number"] != number:
            starts = open_starts(context.checkpoint(RECOVER_STAGE), set_shape(context))
            images = starts[self._batches[number].places]
            return first_state(images.to(context.device)), []
        placed = {name: tensor.to(context.device) for name, tensor in saved[0].items()}
        moments = Moments(placed["mean"], placed["square"])
        return RecoverState(saved[1]["step"], placed[IMAGES], moments), saved[1]["steps"]

    def steps(
        self, drawn: DrawnMembers, number: int, state: RecoverState
    ) -> Iterator[tuple[RecoverState, RecoverStep]]:
        """The remaining steps of a batch.

        Raises:
            DivergedRunError: if the loss diverges.
        """
        context, table = self._context, recover_table(self._context)
        batch = self._batches[number]
        problem = _problem(context, self._teachers(drawn, batch), batch, number)
        settings = RecoverSettings(table.lr, table.bn_weight, precision=table.precision)
        networks = [self._members[place] for place, _ in eligible(context)]
        largest = max(len(planned.places) for planned in self._batches)
        try:
            with context.threads(largest, *networks):
                yield from recover_images(state, table.iterations, problem, settings)
        except DivergedError as error:
            raise DivergedRunError(
                f"recover diverged at step {error.step} of batch {number}: {error}"
            ) from None

    def _teachers(self, drawn: DrawnMembers, batch: RecoverBatch) -> list[Teacher]:
        """The members of a batch with what they aim at."""
        return [
            Teacher(self._members[place], weight, self._aims.of_batch(place, batch))
            for place, weight in zip(drawn.members, drawn.weights, strict=True)
        ]


def _problem(
    context: Context, teachers: Sequence[Teacher], batch: RecoverBatch, number: int
) -> RecoverProblem:
    """The problem of a batch; its views depend on its number and the step alone."""
    table = recover_table(context)
    views = SharedViews(table.view_area, table.flip, table.roll)

    def view(step: int) -> SharedView:
        return views.sample(
            context.data.size, context.generator(RECOVER_STAGE, "view", number, step)
        )

    valid = _valid_images(context, table)
    blending = make_blending(context, teachers, batch)
    return RecoverProblem(teachers, batch.labels.to(context.device), view, valid, blending)


def _valid_images(context: Context, table: RecoverTable) -> Callable[[Tensor, Tensor], Tensor]:
    """Projection to the nearest images whose pixels lie in [0, 1]."""
    preprocess = context.preprocess
    if not isinstance(preprocess, Preprocess):
        return lambda images, _: preprocess(preprocess.inverse(images).clamp(0, 1))
    return ValidImages(*preprocess.bounds(context.device), table.background)
