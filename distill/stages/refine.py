"""Refine the images of a set in a tower's space."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

import projectors
from distill.data import Preprocess
from distill.errors import DivergedRunError, WorkError
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.refine import RefineTable
from distill.run.artefacts import REFINE_STAGE, SET
from distill.run.context import Context
from distill.run.dry_run import Cost, run_dry
from distill.run.load import step_count
from distill.sets.additions import BEFORE_REFINED, add_refined
from distill.sets.set_file import read_set
from distill.stages.stage import Stage, set_parts
from distill.stages.units.networks import STEPS, Units
from distill.stages.units.shapes import parameter_count, synthetic_shape
from distill.stages.units.unit import Part, Task, Unit, exhaust
from projectors import Tower
from synth.formation import decode_images
from synth.images import gather


def run_refine(context: Context, table: RefineTable) -> None:
    """Add /refined to set.h5: its images after the update, which students see from then on.

    Raises:
        WorkError: if the tower cannot be used.
        DivergedRunError: if the update diverges; the set stays as it is.
    """
    context.run.keep_metrics(REFINE_STAGE)
    path = context.run.path / SET
    content = read_set(path, BEFORE_REFINED)
    images = gather(content.images).to(context.device, copy=True)
    settings = projectors.RefineSettings(table.steps, table.lr, table.factor)
    try:
        tower = projectors.load_tower(table.tower, seed=context.recipe.seed)
        steps = projectors.refine_images(
            images,
            _encode(context, tower),
            settings,
            decode=lambda stored: decode_images(stored, content.factor),
            bounds=_bounds(context, images),
            batch_size=table.batch_size,
        )
        progress = context.progress.task(REFINE_STAGE, table.steps)
        batch = min(table.batch_size, len(images))
        with progress as advance, context.threads(batch, tower.clip.visual):
            for step in steps:
                context.stop.check()
                context.log(REFINE_STAGE, step=step.index, loss=step.loss)
                advance(f"loss {step.loss:.3g}")
    except projectors.DivergedError as error:
        raise DivergedRunError(f"refine diverged at step {error.step}: {error}") from None
    except projectors.ProjectorError as error:
        raise WorkError(f"refine: {error}") from None
    add_refined(path, images.cpu())


def _encode(context: Context, tower: Tower) -> Callable[[Tensor], Tensor]:
    preprocess = _preprocess(context)
    space = projectors.Preprocessing(preprocess.mean, preprocess.std)
    return projectors.image_encoder(tower, space).to(context.device)


def _bounds(context: Context, images: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (low, high) that keep pixels between black and white if they were before.

    Matched images may lie outside, and are not clamped.
    """
    low, high = _preprocess(context).bounds(images.device)
    return torch.minimum(images, low), torch.maximum(images, high)


def _preprocess(context: Context) -> Preprocess:
    if not isinstance(context.preprocess, Preprocess):
        raise WorkError("a tower reads pixels, not whitened images; set data.zca = false")
    return context.preprocess


def refine_units(units: Units, table: RefineTable) -> list[Task[Unit]]:
    """Consecutive steps on batches of stored images."""
    stored = synthetic_shape(units.recipe, units.shape).stored
    batch = min(table.batch_size, stored)
    step = _refine_step(units, table, batch, stored)
    return [Task(1, (Part(table.steps * step_count(stored, batch), step),))]


def _refine_step(units: Units, table: RefineTable, batch: int, stored: int) -> Unit:
    """One step of refining a batch of stored images; raises ProjectorError without the tower."""
    channels = units.shape.channels
    space = projectors.Preprocessing((0.5,) * channels, (0.25,) * channels)
    encoder = projectors.image_encoder(projectors.load_tower(table.tower), space)
    factor = 1 if units.recipe.match is None else units.recipe.match.factor

    def refine(images: Tensor, encode: Callable[[Tensor], Tensor], steps: int) -> None:
        settings = projectors.RefineSettings(steps, 1e-6, table.factor)
        exhaust(
            projectors.refine_images(
                images,
                encode,
                settings,
                decode=lambda seen: decode_images(seen, factor),
                batch_size=len(images),
            )
        )

    def work(size: int) -> tuple[Callable[[], object], int]:
        images, encode = units.images(size), encoder.to(units.device)
        return lambda: refine(images, encode, STEPS), STEPS

    def dry(size: int) -> None:
        meta_encoder = copy.deepcopy(encoder).to("meta")
        images = units.meta_batch(size)[0].requires_grad_()
        seen = decode_images(images, factor)
        difference = meta_encoder(seen) - meta_encoder(seen)
        torch.autograd.grad(difference.square().sum(), images)

    def cost(size: int) -> Cost:
        step = run_dry(lambda: dry(size))
        # All images, their two moments of Adam and their two bounds stay in memory.
        return Cost(step.flops, step.peak_bytes + 5 * 4 * stored * units.shape.pixels)

    name = f"refining step of {table.tower}"
    return Unit(name, batch, work, cost, parameter_count(encoder))


STAGE = Stage(
    STAGE_ENTRIES[REFINE_STAGE],
    run_refine,
    set_parts("refined", "refined", attributes=False),
    refine_units,
)
