"""Refine the images of a set in a tower's space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import projectors
from distill.data import Preprocess
from distill.errors import DivergedRunError, WorkError
from distill.recipes.tables.refine import RefineTable
from distill.run.artefacts import REFINE_STAGE, SET
from distill.run.context import Context
from distill.sets.set_file import add_refined, read_set
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
    content = read_set(path)
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
    """No pixel leaves the range from black to white that was within it before.

    Matched images may lie outside, and are not pulled in.
    """
    low, high = _preprocess(context).bounds(images.device)
    return torch.minimum(images, low), torch.maximum(images, high)


def _preprocess(context: Context) -> Preprocess:
    if not isinstance(context.preprocess, Preprocess):
        raise WorkError("a tower reads pixels, not whitened images; set data.zca = false")
    return context.preprocess
