"""Recover images: they are optimised until the committee recognises them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from distill.data.batched import Decoded
from distill.recipes.stages import STAGES
from distill.run.artefacts import RECOVER_STAGE
from distill.run.context import Context, handle_of
from distill.run.engines import in_turn, torch_threads
from distill.run.progress import Advance
from distill.stages.mosaics import realistic_mosaics
from distill.stages.recover.batch import (
    BatchRecovery,
    Recovered,
    Shard,
    eligible,
    kept_file,
    load_recovered,
    open_recovery,
    pack_state,
    planned_batches,
    recover_tables,
    save_recovered,
    set_shape,
)
from distill.stages.recover.checkpoint import Recorder, RecoverProgress
from distill.stages.recover.disk import DiskImages, put_starts
from distill.stages.recover.units import recover_units
from distill.stages.stage import Stage, made_images
from distill.stages.write_set import write_synthetic
from distill.store.large_arrays import is_large
from distill.teachers.loading import load_committee, load_members
from synth.committee.weights import VoteWeighting
from synth.images import Images, gather
from synth.matching.start import draw_noise
from synth.recovery import RecoverBatch, draw_members, first_state


@dataclass(frozen=True)
class Recovery:
    """A recovery under way.

    Attributes:
        context: of the run.
        batches: all of them, in order.
        weighting: how members are weighed.
        recorder: of checkpoints and metrics.
        advance: counts steps as done.
    """

    context: Context
    batches: Sequence[RecoverBatch]
    weighting: VoteWeighting
    recorder: Recorder
    advance: Advance


def run_recover(context: Context) -> None:
    """Make set.h5; goes on from the last checkpoint.

    Raises:
        WorkError: if a member has no statistics to compare with.
        DivergedRunError: if the loss diverges; the last checkpoint stays.
    """
    table, _ = recover_tables(context)
    members, weighting = load_members(context)
    recorder = Recorder(context, table)
    batches = planned_batches(context)
    waiting = _waiting(context, batches)
    state = recorder.load(waiting) or RecoverProgress(
        waiting or gather(_starting_images(context)), 0
    )
    total = len(batches) * table.iterations
    progress = context.progress.task(RECOVER_STAGE, total, state.steps(table.iterations))
    with progress as advance:
        work = Recovery(context, batches, weighting, recorder, advance)
        steps = _here(work, members, state) if context.engine.here else _away(work, state)
        try:
            for reached in steps:
                state = reached
                context.stop.check()
        finally:
            recorder.flush()
    names = ", ".join(spec for _, spec in eligible(context))
    write_synthetic(context, state.images, network=names)


def _here(
    work: Recovery, members: Sequence[nn.Module], state: RecoverProgress
) -> Iterator[RecoverProgress]:
    """Batch after batch in this process; yields the state after each step."""
    context, recorder, batches = work.context, work.recorder, work.batches
    table, _ = recover_tables(context)
    with torch_threads(context.engine.threads):
        bench = BatchRecovery(context, members)
        while state.batch < len(batches):
            shard, places = _shard(work, state), batches[state.batch].places
            _begin(work, state, shard)
            found = load_recovered(context, shard)
            if found is not None:
                state = state.with_batch(places, found.images)
                recorder.add_batch(state, found.steps)
                work.advance(count=len(found.steps))
                yield state
                continue
            taken = []
            for inner, step in bench.steps(shard):
                state = replace(state, inner=inner)
                taken.append(step)
                if inner.step == table.iterations:
                    if isinstance(state.images, DiskImages):
                        save_recovered(context, shard, Recovered(inner.images, taken))
                    state = state.with_batch(places, inner.images)
                recorder.add(state, step)
                work.advance(f"cross-entropy {step.cross_entropy:.3f}, stats {step.statistics:.3f}")
                yield state


def _away(work: Recovery, state: RecoverProgress) -> Iterator[RecoverProgress]:
    """All batches by the engine; each is kept as soon as it is there, and joined in its turn."""
    first, batches = state, work.batches
    numbers = range(state.batch, len(batches))
    # Batches share no image, so all start from the images as they are now.
    starts = [first, *(replace(first, batch=n, inner=None) for n in numbers[1:])]
    shards = [_shard(work, start) for start in starts] if numbers else []
    for index, found in in_turn(_recovered(work, shards)):
        _begin(work, state, shards[index])
        places = batches[state.batch].places
        state = state.with_batch(places, found.images.to(state.images.device))
        work.recorder.add_batch(state, found.steps)
        yield state


def _recovered(work: Recovery, shards: Sequence[Shard]) -> Iterator[tuple[int, Recovered]]:
    """What came of every batch, with its place in `shards`: found, or recovered and kept."""
    context, missing = work.context, []
    for index, shard in enumerate(shards):
        found = load_recovered(context, shard)
        if found is None:
            missing.append((index, shard))
        else:
            work.advance(count=len(found.steps))
            yield index, found
    away = partial(open_recovery, handle_of(context))
    for (index, shard), (arrays, steps) in context.send(missing, away):
        found = Recovered.of_arrays(arrays, steps)
        save_recovered(context, shard, found)
        last = found.steps[-1]
        note = f"cross-entropy {last.cross_entropy:.3f}, stats {last.statistics:.3f}"
        work.advance(note, len(found.steps))
        yield index, found


def _shard(work: Recovery, state: RecoverProgress) -> Shard:
    """The batch that is next, the members that recover it and the weights of their votes."""
    context, (table, _) = work.context, recover_tables(work.context)
    batch, pool = work.batches[state.batch], eligible(context)
    priors = [work.weighting.scores[place] for place, _ in pool]
    generator = context.generator(RECOVER_STAGE, "members", batch.call)
    drawn = draw_members(table.schedule, priors, table.drawn, batch.call, generator)
    places = [pool[index][0] for index in drawn]
    weights = work.weighting.weights(
        table.vote_temperature, context.generator(RECOVER_STAGE, "weights", batch.call), places
    )
    members = (state.batch, tuple(places), tuple(weights.tolist()))
    if state.inner is None and isinstance(state.images, DiskImages):
        return Shard(*members, 0, {}, starts_file(context).resolve())
    inner = state.inner or first_state(state.images[batch.places])
    return Shard(*members, inner.step, pack_state(inner))


def _begin(work: Recovery, state: RecoverProgress, shard: Shard) -> None:
    """Note a batch's members before its first step."""
    if shard.step == 0:
        specs = dict(eligible(work.context))
        call = work.batches[shard.number].call
        names = [specs[place] for place in shard.members]
        work.recorder.begin(state, call, names, shard.weights)


def _waiting(context: Context, batches: Sequence[RecoverBatch]) -> DiskImages | None:
    """The images of a large set, which wait on the disk; None for others."""
    shape = set_shape(context)
    if not is_large(shape, 4):
        return None
    starts = put_starts(starts_file(context), shape, lambda: _starting_images(context))
    return DiskImages(starts, batches, 0, partial(kept_file, context))


def starts_file(context: Context) -> Path:
    """Where the first images of a large set are kept."""
    return context.checkpoint(RECOVER_STAGE) / "starts.h5"


def _starting_images(context: Context) -> Images:
    """Images [k * ipc, c, h, w] to start from, in class order."""
    table, _ = recover_tables(context)
    shape = set_shape(context)

    def noise() -> Images:
        if not is_large(shape, 4):
            return draw_noise(shape, context.generator(RECOVER_STAGE, "init")).to(context.device)

        def one(place: int) -> Tensor:
            return draw_noise((1, *shape[1:]), context.generator(RECOVER_STAGE, "init", place))[0]

        return Decoded(shape[0], (shape[1], shape[2], shape[3]), one)

    starts: dict[str, Callable[[], Images]] = {
        "mosaics": lambda: realistic_mosaics(
            context, load_committee(context), table, RECOVER_STAGE
        ),
        "real": lambda: context.random_real(table.ipc, context.generator(RECOVER_STAGE, "init"))[0],
        "noise": noise,
    }
    return starts[table.init]()


STAGE = Stage(STAGES[RECOVER_STAGE], run_recover, made_images, recover_units, splits=("train",))
