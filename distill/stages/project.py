"""Fit a projector on real images to the soft labels of teachers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

import projectors
from distill.data import Preprocess
from distill.errors import DivergedRunError, WorkError
from distill.recipes.build import fit_settings, projector_parts, student_view
from distill.recipes.schema import Recipe
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.projector import ProjectorTable
from distill.recipes.tables.relabel import RelabelTable
from distill.recipes.weak_towers import agreement_note
from distill.run.artefacts import EXPERTS, PROJECT_STAGE, PROJECTOR
from distill.run.context import Context
from distill.stages.project_fit import Fit, run_fit
from distill.stages.stage import Stage, output_file
from distill.stages.units.networks import STEPS, Units
from distill.stages.units.shapes import parameter_count
from distill.stages.units.unit import Part, Task, Unit, exhaust, fixed_generator
from distill.store.experts import read_info, read_snapshots
from distill.store.files import remove
from distill.teachers.loading import load_committee
from projectors import Projector
from projectors.files.description import DESCRIPTION
from synth.parameters import call_with_vector
from synth.training.prediction import predict

EXPERTS_PREFIX = "experts:"

_BITS = {"float32": 32, "int8": 8, "int4": 4}

Teacher = Callable[[Tensor], Tensor]


def run_project(context: Context, table: ProjectorTable) -> None:
    """Make the folder projector/; goes on from the last checkpoint.

    Raises:
        WorkError: if the tower or the teacher cannot be used.
        DivergedRunError: if the fit diverges; an earlier projector stays as it is.
    """
    images, labels = context.split("train")
    held_images, held_labels = context.split("validation")
    teacher = _teacher(context, table)
    settings = fit_settings(table, min(table.batch_size, len(images)))
    try:
        projector = build_projector(
            table, context, list(context.data.class_names), context.recipe.seed
        )
        state = projectors.FitState(projector, settings, context.generator(PROJECT_STAGE))
        fit = Fit(
            state=state,
            steps=projectors.fit_projector(
                state, images, teacher, labels, view=student_view(context.recipe)
            ),
            measure=lambda: projectors.measure_fidelity(
                projector, held_images, wanted, held_labels
            ),
            rule=projectors.EarlyStopping(table.stop_on, table.patience),
            check_every=table.check_every,
        )
        wanted = predict(teacher, held_images).softmax(dim=1)
        with context.threads(settings.batch_size, projector.visual):
            run_fit(context, PROJECT_STAGE, fit)
        storage = projectors.Storage(_BITS[table.storage], table.coder)
        shipped = projectors.rounded(projector, storage)
        fidelity = projectors.measure_fidelity(shipped, held_images, wanted, held_labels)
        folder = context.run.path / PROJECTOR
        if not (folder / DESCRIPTION).is_file():
            # What is left of a damaged one; `save` replaces whole projectors alone.
            remove(folder)
        projectors.save(projector, folder, storage=storage, fidelity=fidelity)
        nearest = projectors.nearest_mean_agreement(images, labels, held_images, wanted)
    except projectors.DivergedError as error:
        raise DivergedRunError(f"project diverged at step {error.step}: {error}") from None
    except projectors.ProjectorError as error:
        raise WorkError(f"project: {error}") from None
    context.log(PROJECT_STAGE, held_out_agreement=fidelity.agreement, nearest_mean=nearest)
    if note := agreement_note(fidelity.agreement, nearest, table.tower):
        context.progress.say(f"note: {note}")


def build_projector(
    table: ProjectorTable, context: Context, classes: list[str], seed: int
) -> Projector:
    """A recipe's projector before its fit, on the device."""
    if not isinstance(context.preprocess, Preprocess):
        raise WorkError("a projector reads pixels, not whitened images; set data.zca = false")
    adapter, head = projector_parts(table, seed)
    projector = projectors.build_projector(
        projectors.load_tower(table.tower, seed=seed),
        classes,
        projectors.Preprocessing(context.preprocess.mean, context.preprocess.std),
        adapter=adapter,
        head=head,
    )
    return projector.to(context.device)


def fit_inputs(recipe: Recipe) -> tuple[str, ...]:
    """The stage experts, where experts teach the projector in place of the committee."""
    taught = recipe.projector is not None and recipe.projector.teacher.startswith(EXPERTS_PREFIX)
    return ("experts",) if taught else ()


def view_recipe(recipe: Recipe) -> str | None:
    """The augmentation of [relabel], where the projector has none of its own; None elsewhere."""
    if recipe.projector is None or recipe.projector.augmentation is not None:
        return None
    return (recipe.relabel or RelabelTable()).augmentation


def teacher_epoch(teacher: str) -> int | None:
    """The epoch of the experts that "experts:EPOCH" names; None for another teacher.

    Raises:
        ValueError: if it names no whole number.
    """
    return int(teacher.removeprefix(EXPERTS_PREFIX)) if teacher.startswith(EXPERTS_PREFIX) else None


def _teacher(context: Context, table: ProjectorTable) -> Teacher:
    epoch = teacher_epoch(table.teacher)
    if epoch is not None:
        return _weak_teacher(context, epoch)
    return load_committee(context, None if table.teacher == "committee" else table.teacher).vote


def _weak_teacher(context: Context, epoch: int) -> Teacher:
    """The mean logits of the first network's experts as they were after an early epoch.

    Source: HeLlO, weak teachers.
    """
    path = context.run.path / EXPERTS
    info = read_info(path)
    if info.data != context.data.digest:
        raise WorkError(f"{path} was trained on other data; run the stage experts")
    network = context.network(info.network, PROJECT_STAGE)
    vectors = [
        read_snapshots(path, expert, (epoch, epoch))[0].to(context.device)
        for expert in info.networks[0].experts
    ]

    def vote(images: Tensor) -> Tensor:
        logits = [call_with_vector(network, info.layout, vector, images) for vector in vectors]
        return sum(logits[1:], logits[0]) / len(logits)

    return vote


def project_units(units: Units, table: ProjectorTable) -> list[Task[Unit]]:
    """Consecutive steps; raises ProjectorError where the tower cannot be loaded."""
    step = _fit_step(units, table, min(table.batch_size, units.shape.train))
    return [Task(1, (Part(table.steps, step),))]


def _fit_step(units: Units, table: ProjectorTable, batch: int) -> Unit:
    """One step of fitting the projector, the committee's labels included."""
    projector, view = units.projector, student_view(units.recipe)

    def work(size: int) -> tuple[Callable[[], object], int]:
        images = units.images(STEPS * size)
        hard = torch.arange(len(images), device=units.device) % units.shape.classes
        settings = replace(fit_settings(table, size), steps=STEPS, lr=1e-6)

        def call() -> None:
            state = projectors.FitState(projector, settings, fixed_generator())
            exhaust(projectors.fit_projector(state, images, units.committee.vote, hard, view=view))

        return call, STEPS

    def dry(size: int) -> None:
        images, _ = units.meta_batch(size)
        seen = images if view is None else view(images, fixed_generator())
        with torch.no_grad():
            wanted = units.meta_committee().vote(seen)
        fitted = copy.deepcopy(projector).to("meta")
        update = torch.optim.AdamW([p for p in fitted.parameters() if p.requires_grad])
        functional.mse_loss(fitted.logits(seen), wanted).backward()
        update.step()

    name = f"fitting step of {units.projector_name} by {units.listed}"
    return units.unit(name, batch, work, dry, parameter_count(projector.visual))


STAGE = Stage(
    STAGE_ENTRIES[PROJECT_STAGE],
    run_project,
    output_file(PROJECTOR),
    project_units,
    splits=("train", "validation"),
    also_inputs=fit_inputs,
    derived=view_recipe,
)
