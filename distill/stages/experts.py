"""Train experts on real data and record a snapshot after every epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from distill.build import build_views
from distill.context import Context
from distill.progress import Advance
from distill.stages.tensors import load_tensors, save_tensors
from distill.store.experts import Trajectory, write_experts
from distill.tables import MatchTable, Recipe
from synth.losses import hard_logits
from synth.parameters import parameter_layout, parameter_vector
from synth.sharpness import Sharpness
from synth.training import TrainSettings, accuracy, shuffled_batches, train

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


def run_experts(context: Context) -> None:
    """Make experts.h5; an expert that was finished before an interruption is not trained again."""
    table, kept = context.recipe.matching()[0], kept_epochs(context.recipe)
    folder = context.checkpoint(STAGE)
    context.run.keep_metrics(STAGE)
    with context.progress.task(STAGE, table.count * table.epochs) as advance:
        for index in range(table.count):
            path = folder / f"{index:04d}.safetensors"
            found = load_tensors(path)
            if found is None:
                expert = _train_expert(context, index, advance)
                save_tensors(path, {"snapshots": expert.snapshots}, expert.accuracies)
                accuracies = expert.accuracies
            else:
                accuracies = found[1]
                advance(count=table.epochs)
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


def _train_expert(context: Context, index: int, advance: Advance) -> Trajectory:
    table, kept = context.recipe.matching()[0], kept_epochs(context.recipe)
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    soft = hard_logits(labels, context.classes)
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
    return Trajectory(torch.stack(snapshots), accuracies)
