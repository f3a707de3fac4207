"""The cost of recovery, in units of work."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from distill.recipes.tables.recover import RecoverTable
from distill.run.load import step_count
from distill.stages.mosaics import mosaic_units
from distill.stages.units.networks import STEPS, Units
from distill.stages.units.unit import Part, Task, Unit, exhaust, fixed_generator
from synth.recovery import (
    RecoverProblem,
    RecoverSettings,
    SharedView,
    SharedViews,
    Teacher,
    ValidImages,
    first_state,
    recover_images,
    running_statistics,
)
from synth.recovery.statistics import watch_batch_norms


def recover_units(units: Units, table: RecoverTable) -> list[Task[Unit]]:
    """Independent calls: one image of each class, or all of one class."""
    classes, pool = units.shape.classes, table.members or units.members
    within = table.batches == "within"
    calls, images = (classes, table.ipc) if within else (table.ipc, classes)
    batch = min(table.batch_size or images, images)
    steps = table.iterations * step_count(images, batch)
    # A call draws some members; each is counted as often as it is drawn on average.
    share = round(steps * table.drawn / len(pool))
    parts = tuple(Part(share, _recover_step(units, spec, batch, table)) for spec in pool)
    mosaics = mosaic_units(units, table) if table.init == "mosaics" else []
    return [Task(calls, parts, mapped=True), *mosaics]


def _recover_step(units: Units, spec: str, batch: int, table: RecoverTable) -> Unit:
    """One step of recovering a batch of images by one member."""
    settings = RecoverSettings(1e-6, table.bn_weight, table.first_bn, precision=table.precision)

    def work(size: int) -> tuple[Callable[[], object], int]:
        problem = _problem(units, units.network(spec), size, table)
        state = first_state(units.images(size))
        return lambda: exhaust(recover_images(state, STEPS, problem, settings)), STEPS

    def dry(size: int) -> None:
        network = units.meta(spec).eval().requires_grad_(False)
        images = units.meta_batch(size)[0].requires_grad_()
        with watch_batch_norms(network) as seen:
            loss = network(images).square().sum()
        for entry in seen if table.bn_weight else []:
            loss = loss + entry.features.var()
        torch.autograd.grad(loss, images)

    name = f"recovery step of {spec}, statistics {'on' if table.bn_weight else 'off'}"
    name += f", {table.precision}" if table.precision != "float32" else ""
    return units.unit(name, batch, work, dry, units.size([spec]))


def _problem(units: Units, network: nn.Module, size: int, table: RecoverTable) -> RecoverProblem:
    """A batch of `size` images that one member recovers."""
    network = network.eval().requires_grad_(False)
    targets = running_statistics(network) if table.bn_weight else ()
    labels = torch.arange(size, device=units.device) % units.shape.classes
    views, generator = SharedViews(table.view_area, table.flip, table.roll), fixed_generator()

    def view(step: int) -> SharedView:
        return views.sample(units.shape.size, generator)

    limit = torch.tensor(3.0, device=units.device)
    valid = ValidImages(-limit, limit, table.background)
    return RecoverProblem([Teacher(network, 1.0, targets)], labels, view, valid)
