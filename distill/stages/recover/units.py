"""The cost of recovery, in units of work."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distill.recipes.tables.recover import RecoverTable
from distill.run.load import step_count
from distill.stages.mosaics import mosaic_units
from distill.stages.units.networks import STEPS, Units
from distill.stages.units.unit import Part, Task, Unit, exhaust, fixed_generator
from synth.recovery import (
    Aim,
    AnchorAim,
    DirectionAim,
    NormAim,
    RecoverProblem,
    RecoverSettings,
    SharedView,
    SharedViews,
    Teacher,
    ValidImages,
    first_state,
    gradient_directions,
    recover_images,
    running_statistics,
)


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
    return [Task(calls, parts, mapped=True), *mosaics, *_asked(units, table)]


def _asked(units: Units, table: RecoverTable) -> list[Task[Unit]]:
    """Passes of the members over real images before the first step."""
    shape, each = units.shape, table.aim if table.bn_weight else "none"
    looks = int(table.reads_groups) + int(each in ("groups", "directions"))
    tasks = []
    if looks:
        pool = table.members or units.members
        passes = tuple(units.predictions(spec, shape.train, looks) for spec in pool)
        tasks.append(Task(1, passes))
    if table.reads_anchors:
        count = min(table.candidates, shape.train // shape.classes)
        passes = tuple(units.predictions(spec, count) for spec in units.members)
        tasks.append(Task(shape.classes, passes))
    return tasks


def _recover_step(units: Units, spec: str, batch: int, table: RecoverTable) -> Unit:
    """One step of recovering a batch of images by one member."""
    settings = RecoverSettings(1e-6, table.bn_weight, precision=table.precision)

    def work(size: int) -> tuple[Callable[[], object], int]:
        problem = _problem(units, units.network(spec), size, table)
        state = first_state(units.images(size))
        return lambda: exhaust(recover_images(state, STEPS, problem, settings)), STEPS

    def dry(size: int) -> None:
        network = units.meta(spec).eval().requires_grad_(False)
        images = units.meta_batch(size)[0].requires_grad_()
        aim = _aim(table, network, images.detach())
        if aim is None:
            loss = network(images).square().sum()
        else:
            view = SharedView((0, 0, *units.shape.size), False, (0, 0))
            logits, distance = aim(network, images, view, "float32")
            loss = logits.square().sum() + distance
        torch.autograd.grad(loss, images)

    name = f"recovery step of {spec}, {table.aim} {'on' if table.bn_weight else 'off'}"
    name += f", {table.precision}" if table.precision != "float32" else ""
    return units.unit(name, batch, work, dry, units.size([spec]))


def _problem(units: Units, network: nn.Module, size: int, table: RecoverTable) -> RecoverProblem:
    """A batch of `size` images that one member recovers."""
    network = network.eval().requires_grad_(False)
    aim = _aim(table, network, units.images(size))
    labels = torch.arange(size, device=units.device) % units.shape.classes
    views, generator = SharedViews(table.view_area, table.flip, table.roll), fixed_generator()

    def view(step: int) -> SharedView:
        return views.sample(units.shape.size, generator)

    limit = torch.tensor(3.0, device=units.device)
    valid = ValidImages(-limit, limit, table.background)
    return RecoverProblem([Teacher(network, 1.0, aim)], labels, view, valid)


def _aim(table: RecoverTable, network: nn.Module, images: Tensor) -> Aim | None:
    """An aim that costs as much as the recipe's, for a batch of these images."""
    if not table.bn_weight:
        return None
    if table.aim == "anchors":
        return AnchorAim(images.repeat_interleave(table.factor**2, dim=0), table.factor)
    if table.aim == "directions":
        return DirectionAim(gradient_directions(network, [images[:2]]))
    return NormAim(running_statistics(network), table.first_bn)
