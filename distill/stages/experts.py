"""Train experts on real data and record a snapshot after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from distill.build import build_views
from distill.context import Context
from distill.engines import in_turn
from distill.opening import Opening, no_advance, open_context, opening_of
from distill.progress import Advance
from distill.stages.tensors import from_arrays, load_tensors, save_tensors
from distill.store.experts import Trajectory, write_experts
from distill.tables import MatchTable, Recipe
from synth.batches import shuffled_batches
from synth.images import HardLogits
from synth.parameters import parameter_layout, parameter_vector
from synth.sharpness import Sharpness
from synth.training import TrainSettings, accuracy, train

STAGE = "experts"
FILE = "experts.h5"


def kept_epochs(recipe: Recipe) -> tuple[int, ...]:
    """The epochs (0: untrained) whose snapshots are kept.

    With experts.keep "window" these are the starts and the targets of the segments that matching
    can draw, and the last one where it starts from what finished experts say; all others would
    never be read.
    """
    table, match = recipe.matching()
    if table.keep == "all":
        return tuple(range(table.epochs + 1))
    finished = match.init == "correct" or match.label_init == "experts"
    last = {table.epochs} if finished else set()
    return tuple(sorted(window_epochs(match) | last))


def window_epochs(match: MatchTable) -> set[int]:
    """The starts and the targets of the segments that matching can draw."""
    starts = range(match.min_start_epoch, match.max_start_epoch + 1)
    return {*starts, *(start + match.span for start in starts)}


@dataclass(frozen=True, eq=False)
class Recorded:
    """What one training gives: snapshots float32 [m, p], and the accuracy after each epoch."""

    snapshots: np.ndarray
    accuracies: list[float]


def run_experts(context: Context) -> None:
    """Make experts.h5; an expert that was finished before an interruption is not trained again."""
    table, kept = context.recipe.matching()[0], kept_epochs(context.recipe)
    folder = context.checkpoint(STAGE)
    context.run.keep_metrics(STAGE)
    with context.progress.task(STAGE, table.count * table.epochs) as advance:
        for index, accuracies in in_turn(_curves(context, folder, advance)):
            for epoch, value in enumerate(accuracies, start=1):
                context.log(STAGE, expert=index, epoch=epoch, accuracy=value)

    def trajectories() -> Iterator[Trajectory]:
        for index in range(table.count):
            found = load_tensors(folder / f"{index:04d}.safetensors")
            if found is None:
                raise OSError(f"the checkpoint of expert {index} is gone; run the stage again")
            yield Trajectory(found[0]["snapshots"], found[1], None if table.keep == "all" else kept)

    write_experts(
        context.run.path / FILE,
        table.network,
        context.data.digest,
        parameter_layout(context.network(table.network, STAGE, 0)),
        trajectories(),
        table.storage,
    )


def open_experts(opening: Opening) -> Callable[[int], Recorded]:
    """What trains the expert of a number, in another process."""
    return partial(_train_expert, open_context(opening), no_advance)


def _curves(context: Context, folder: Path, advance: Advance) -> Iterator[tuple[int, list[float]]]:
    """The accuracies of every expert, as they are found or trained; its snapshots are kept."""
    table = context.recipe.matching()[0]
    missing = []
    for index in range(table.count):
        found = load_tensors(folder / f"{index:04d}.safetensors")
        if found is None:
            missing.append(index)
        else:
            advance(count=table.epochs)
            yield index, found[1]
    here, away = (
        partial(_train_expert, context, advance),
        partial(open_experts, opening_of(context)),
    )
    for index, expert in context.share(missing, lambda: here, away):
        path = folder / f"{index:04d}.safetensors"
        save_tensors(path, from_arrays({"snapshots": expert.snapshots}), expert.accuracies)
        if not context.engine.here:
            advance(f"expert {index + 1}, accuracy {expert.accuracies[-1]:.3f}", table.epochs)
        yield index, expert.accuracies


def _train_expert(context: Context, advance: Advance, index: int) -> Recorded:
    table, kept = context.recipe.matching()[0], kept_epochs(context.recipe)
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    soft = HardLogits(labels, context.classes)
    network = context.network(table.network, STAGE, index)
    generator = context.generator(STAGE, index)
    views = build_views(context.recipe.data.augmentation, one_per_batch=True)
    rho, alpha = table.sharpness_rho, table.sharpness_alpha
    settings = TrainSettings(
        table.epochs,
        table.lr,
        momentum=table.momentum,
        weight_decay=0.0,
        schedule="constant",
        sharpness=Sharpness(rho, alpha) if rho > 0 else None,
    )
    snapshots = [parameter_vector(network).cpu()] if 0 in kept else []
    accuracies = []
    epochs = train(
        network,
        lambda epoch: shuffled_batches(images, soft, table.batch_size, views, generator),
        settings,
    )
    with context.threads(table.batch_size, network):
        for epoch in epochs:
            context.stop.check()
            if epoch.index in kept:
                snapshots.append(parameter_vector(network).cpu())
            accuracies.append(accuracy(network, held_images, held_labels))
            advance(f"expert {index + 1}, loss {epoch.loss:.3f}, accuracy {accuracies[-1]:.3f}")
    return Recorded(torch.stack(snapshots).numpy(), accuracies)
