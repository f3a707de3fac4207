"""Train experts on real data and record a snapshot after every epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from distill.build import build_views
from distill.context import Context
from distill.progress import Advance
from distill.stages.tensors import load_tensors, save_tensors
from distill.store.experts import Trajectory, write_experts
from synth.losses import hard_logits
from synth.parameters import parameter_layout, parameter_vector
from synth.training import TrainSettings, accuracy, shuffled_batches, train

STAGE = "experts"
FILE = "experts.h5"


def run_experts(context: Context) -> None:
    """Make experts.h5; an expert that was finished before an interruption is not trained again."""
    table = context.recipe.experts
    folder = context.checkpoint(STAGE)
    context.run.keep_metrics(STAGE)
    with context.progress.task(STAGE, table.count * table.epochs) as advance:
        for index in range(table.count):
            path = folder / f"{index:04d}.safetensors"
            found = load_tensors(path)
            if found is None:
                with context.threads(table.batch_size):
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
            yield Trajectory(found[0]["snapshots"], found[1])

    layout = parameter_layout(context.network(table.network, STAGE, 0))
    write_experts(
        context.run.path / FILE, table.network, context.data.digest, layout, trajectories()
    )


def _train_expert(context: Context, index: int, advance: Advance) -> Trajectory:
    table = context.recipe.experts
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    soft = hard_logits(labels, context.classes)
    network = context.network(table.network, STAGE, index)
    generator = context.generator(STAGE, index)
    views = build_views(context.recipe.data.augmentation, one_per_batch=True)
    settings = TrainSettings(
        table.epochs, table.lr, momentum=table.momentum, weight_decay=0.0, schedule="constant"
    )
    snapshots, accuracies = [parameter_vector(network).cpu()], []
    epochs = train(
        network,
        lambda epoch: shuffled_batches(images, soft, table.batch_size, views, generator),
        settings,
    )
    for epoch in epochs:
        context.stop.check()
        snapshots.append(parameter_vector(network).cpu())
        accuracies.append(accuracy(network, held_images, held_labels))
        advance(f"expert {index + 1}, loss {epoch.loss:.3f}, accuracy {accuracies[-1]:.3f}")
    return Trajectory(torch.stack(snapshots), accuracies)
