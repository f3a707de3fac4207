"""The units of work of recovery and of mosaics, see `distill.plan.units`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from distill.plan.calibration import Timed
from distill.plan.clock import exhaust, fixed_generator
from distill.plan.units import Units
from distill.recipes.tables.recover import RecoverTable
from synth.crops import crop_resized, draw_box
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

# Steps in one call to time.
_STEPS = 2


def recover_step(units: Units, spec: str, batch: int, table: RecoverTable) -> Timed:
    """One step of recovering a batch of images by one member."""
    settings = RecoverSettings(1e-6, table.bn_weight, table.first_bn)

    def work(size: int) -> tuple[Callable[[], object], int]:
        problem = _problem(units, units.network(spec), size, table)
        state = first_state(units.clock.images(size))
        return lambda: exhaust(recover_images(state, _STEPS, problem, settings)), _STEPS

    def dry(size: int) -> None:
        network = units.meta(spec).eval().requires_grad_(False)
        images = units.meta_batch(size)[0].requires_grad_()
        with watch_batch_norms(network) as seen:
            loss = network(images).square().sum()
        for entry in seen if table.bn_weight else []:
            loss = loss + entry.features.var()
        torch.autograd.grad(loss, images)

    name = f"recovery step of {spec}, statistics {'on' if table.bn_weight else 'off'}"
    return units.price(name, work, dry, batch, units.size([spec]))


def _problem(units: Units, network: nn.Module, size: int, table: RecoverTable) -> RecoverProblem:
    """A batch of `size` images that one member recovers."""
    network = network.eval().requires_grad_(False)
    targets = running_statistics(network) if table.bn_weight else ()
    labels = torch.arange(size, device=units.clock.device) % units.clock.shape.classes
    views, generator = SharedViews(table.view_area, table.flip, table.roll), fixed_generator()

    def view(step: int) -> SharedView:
        return views.sample(units.clock.shape.size, generator)

    limit = torch.tensor(3.0, device=units.clock.device)
    valid = ValidImages(-limit, limit, table.background)
    return RecoverProblem([Teacher(network, 1.0, targets)], labels, view, valid)


def judged_crops(units: Units, batch: int) -> Timed:
    """One batch of crops of real images, cut and judged by the committee."""
    size = units.clock.shape.size

    def work(count: int) -> tuple[Callable[[], object], int]:
        committee, images, generator = units.committee, units.clock.images(count), fixed_generator()

        def call() -> None:
            boxes = [draw_box(size, generator, 0.08, stretch=1.0) for _ in images]
            cut = [
                crop_resized(image.unsqueeze(0), box, size)
                for image, box in zip(images, boxes, strict=True)
            ]
            committee.vote(torch.cat(cut))

        return call, 1

    def dry(count: int) -> None:
        units.meta_committee().vote(units.meta_batch(count)[0])

    return units.price(
        f"judged crops of {units.listed}", work, dry, batch, units.size(units.members)
    )
