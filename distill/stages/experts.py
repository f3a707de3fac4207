"""Train experts on real data and record a snapshot after every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from distill.recipes.build import build_views
from distill.recipes.schema import kept_epochs
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.experts import ExpertsTable
from distill.run.artefacts import EXPERTS, EXPERTS_STAGE
from distill.run.context import Context
from distill.run.engines import Load, in_turn
from distill.run.load import step_count
from distill.stages.stage import Stage, output_file
from distill.stages.units.networks import Units
from distill.stages.units.shapes import meta_network, parameter_count
from distill.stages.units.unit import Part, Task, Unit
from distill.store.experts import NetworkExperts, write_experts
from distill.store.tensors import Arrays, to_arrays
from distill.store.trajectories import Trajectory
from synth.images import HardLogits
from synth.parameters import parameter_layout, parameter_vector
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy
from synth.training.sharpness import Sharpness


def run_experts(context: Context, table: ExpertsTable) -> None:
    """Make experts.h5; an expert that was finished before an interruption is not trained again."""
    checkpoint = context.checkpoint(EXPERTS_STAGE)
    context.run.keep_metrics(EXPERTS_STAGE)
    networks = table.all_networks
    units = [table.epochs] * (table.count * len(networks))
    with context.progress.task(EXPERTS_STAGE, sum(units)):
        parts = context.map_parts(
            checkpoint, _train_expert, units, partial(_load, context), leave_out=("snapshots",)
        )
        for index, (_, accuracies) in in_turn(parts):
            for epoch, value in enumerate(accuracies, start=1):
                context.log(EXPERTS_STAGE, expert=index, epoch=epoch, accuracy=value)
    kept = None if table.keep == "all" else kept_epochs(context.recipe)

    def trajectories() -> Iterator[Trajectory]:
        for index in range(len(units)):
            saved = checkpoint.part(index).load()
            if saved is None:
                raise OSError(f"the checkpoint of expert {index} is gone; run the stage again")
            yield Trajectory(saved[0]["snapshots"], saved[1], kept)

    layouts = [parameter_layout(context.network(spec, EXPERTS_STAGE, 0)) for spec in networks]
    ranges = [range(i * table.count, (i + 1) * table.count) for i in range(len(networks))]
    write_experts(
        context.run.path / EXPERTS,
        table.network,
        context.data.digest,
        layouts[0],
        trajectories(),
        table.storage,
        others=[*map(NetworkExperts, networks, layouts, ranges)][1:],
    )


def _spec(table: ExpertsTable, index: int) -> str:
    """The network of an expert: those of the first network come first."""
    return table.all_networks[index // table.count]


def _load(context: Context, index: int) -> Load:
    """The load of training an expert."""
    table: ExpertsTable = context.recipe.table("experts")
    batch = min(table.batch_size, len(context.data.train))
    steps = table.epochs * step_count(len(context.data.train), batch)
    return context.training_load(_spec(table, index), batch, steps)


def _train_expert(context: Context, index: int) -> tuple[Arrays, list[float]]:
    """The snapshots [m, p] of an expert, and its accuracy after each epoch."""
    table: ExpertsTable = context.recipe.table("experts")
    kept = kept_epochs(context.recipe)
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    soft = HardLogits(labels, context.classes)
    network = context.network(_spec(table, index), EXPERTS_STAGE, index)
    generator = context.generator(EXPERTS_STAGE, index)
    views = build_views(context.recipe.data.augmentation, one_per_batch=True)
    snapshots = [parameter_vector(network).cpu()] if 0 in kept else []
    accuracies = []
    epochs = train(
        network,
        lambda epoch: shuffled_batches(images, soft, table.batch_size, views, generator),
        _settings(table),
    )
    with context.threads(table.batch_size, network):
        for epoch in epochs:
            context.stop.check()
            if epoch.index in kept:
                snapshots.append(parameter_vector(network).cpu())
            accuracies.append(accuracy(network, held_images, held_labels))
            context.progress.advance(
                f"expert {index + 1}, loss {epoch.loss:.3f}, accuracy {accuracies[-1]:.3f}"
            )
    return to_arrays({"snapshots": torch.stack(snapshots)}), accuracies


def _settings(table: ExpertsTable) -> TrainSettings:
    rho, alpha = table.sharpness_rho, table.sharpness_alpha
    return TrainSettings(
        table.epochs,
        table.lr,
        momentum=table.momentum,
        weight_decay=0.0,
        schedule="constant",
        sharpness=Sharpness(rho, alpha) if rho > 0 else None,
        precision=table.precision,
        compiled=table.compile == "on",
    )


def experts_units(units: Units, table: ExpertsTable) -> list[Task[Unit]]:
    """Every expert is trained by itself, and tested after each epoch."""
    shape, families = units.shape, units.recipe.data.augmentation
    batch = min(table.batch_size, shape.train)
    steps, tasks = table.epochs * step_count(shape.train, batch), []
    for spec in table.all_networks:
        step = units.training_step(spec, batch, families, _settings(table), one_per_batch=True)
        tested = units.predictions(spec, shape.validation, table.epochs)
        tasks.append(Task(table.count, (Part(steps, step), tested), mapped=True))
    return tasks


def _snapshot_bytes(units: Units, table: ExpertsTable) -> int:
    """Bytes of an expert's snapshots, held twice: one by one, and stacked."""
    networks = [meta_network(spec, units.shape) for spec in table.all_networks]
    return 2 * 4 * len(kept_epochs(units.recipe)) * max(map(parameter_count, networks))


STAGE = Stage(
    STAGE_ENTRIES["experts"],
    run_experts,
    output_file(EXPERTS),
    experts_units,
    splits=("train", "validation"),
    held=_snapshot_bytes,
    derived=kept_epochs,
)
