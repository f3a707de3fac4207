"""Fit a projector on real images to the committee's soft labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

import projectors
from distill.build import build_views
from distill.context import Context
from distill.data import Preprocess
from distill.errors import DivergedRunError, WorkError
from distill.stages.committee import load_committee
from distill.tables import ProjectorTable
from projectors import Projector
from synth.committee import Committee
from synth.training import predict

STAGE = "project"
FOLDER = "projector"


def run_project(context: Context) -> None:
    """Make the folder projector/.

    Raises:
        WorkError: if the tower cannot be used.
        DivergedRunError: if the fit diverges; an earlier projector stays as it is.
    """
    table = _table(context)
    context.run.keep_metrics(STAGE)
    images, labels = context.split("train")
    committee = load_committee(context, None if table.teacher == "committee" else table.teacher)
    settings = projectors.FitSettings(
        steps=table.steps,
        batch_size=min(table.batch_size, len(images)),
        lr=table.lr,
        ce_weight=table.ce_weight,
        loss=table.loss,
        temperature=table.temperature,
    )
    try:
        projector = _build(context, table)
        steps = projectors.fit_projector(
            projector,
            images,
            committee.vote,
            labels,
            settings=settings,
            view=_view(table),
            generator=context.generator(STAGE),
        )
        progress = context.progress.task(STAGE, table.steps)
        with progress as advance, context.threads(settings.batch_size, projector.visual):
            for step in steps:
                context.stop.check()
                if step.index % 10 == 0:
                    context.log(STAGE, step=step.index, loss=step.loss)
                advance(f"loss {step.loss:.4f}")
        _log_fidelity(context, projector, committee)
        projectors.save(projector, context.run.path / FOLDER)
    except projectors.DivergedError as error:
        raise DivergedRunError(f"project diverged at step {error.step}: {error}") from None
    except projectors.ProjectorError as error:
        raise WorkError(f"project: {error}") from None


def _table(context: Context) -> ProjectorTable:
    if context.recipe.projector is None:
        raise WorkError("the recipe has no [projector] table; add one")
    return context.recipe.projector


def _build(context: Context, table: ProjectorTable) -> Projector:
    if not isinstance(context.preprocess, Preprocess):
        raise WorkError("a projector reads pixels, not whitened images; set data.zca = false")
    tower = projectors.load_tower(table.tower, seed=context.recipe.seed)
    projector = projectors.build_projector(
        tower,
        list(context.data.class_names),
        projectors.Preprocessing(context.preprocess.mean, context.preprocess.std),
        adapter=projectors.AdapterSettings(
            rank=table.rank, alpha=table.alpha, seed=context.recipe.seed
        ),
        head=projectors.HeadSettings(
            templates=tuple(table.templates),
            init=table.head,
            trained=table.trained,
            seed=context.recipe.seed,
        ),
    )
    return projector.to(context.device)


def _view(table: ProjectorTable) -> Callable[[Tensor, Generator], Tensor] | None:
    views = build_views(table.augmentation, one_per_batch=False)
    if views is None:
        return None

    def view(images: Tensor, generator: Generator) -> Tensor:
        size = (images.shape[2], images.shape[3])
        return views.sample(len(images), size, generator).apply(images)

    return view


def _log_fidelity(context: Context, projector: Projector, committee: Committee) -> None:
    images, labels = context.split("validation")
    teacher = predict(committee.vote, images).softmax(dim=1)
    found = projectors.measure_fidelity(projector, images, teacher, labels)
    table = _table(context)
    context.log(
        STAGE,
        step=table.steps,
        kl=found.kl,
        agreement=found.agreement,
        accuracy=found.accuracy,
    )
