"""Evaluate the synthetic set of a run with fresh students, and store the result in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from distill.evaluation.jobs import STUDENTS, WHOLE, StudentJob, plan_jobs, plan_plain, plan_trials
from distill.evaluation.protocols import job_settings, protocol_name
from distill.evaluation.results import judge
from distill.recipes.build import relabel_views
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import EVALUATE_STAGE, EVALUATION, SET
from distill.run.context import Context
from distill.run.load import step_count
from distill.sets.set_file import SET_KIND, add_measured
from distill.stages.stage import Stage, output_file, vote_keys
from distill.stages.units.networks import Units, seen_by
from distill.stages.units.shapes import parameter_count, synthetic_shape
from distill.stages.units.unit import NotPricedError, Part, Task, Unit, exhaust, fixed_generator
from distill.store.files import write_json
from distill.store.hdf5 import digest_attribute
from projectors import Projector
from synth.committee.relabel import labelled_online


def run_evaluate(context: Context, table: EvaluateTable) -> None:
    """Make evaluation.json and the attribute `measured` of set.h5."""
    context.run.keep_metrics(EVALUATE_STAGE)
    log = context.checkpoint(EVALUATE_STAGE).folder / "jobs.jsonl"
    evaluation = judge(context, table, context.run.path / SET, log)
    write_json(context.run.path / EVALUATION, evaluation)
    add_measured(context.run.path / SET, evaluation)


def evaluate_units(units: Units, table: EvaluateTable) -> list[Task[Unit]]:
    """Students, which are independent of each other."""
    if table.equal_bytes:
        raise NotPricedError("the control of evaluate.equal_bytes is not priced")
    recipe = units.recipe
    sources = {
        "hard": True,
        "learned": recipe.match is not None,
        "votes": recipe.relabel is not None,
        "projector": recipe.projector is not None,
    }
    if recipe.encode is not None and recipe.encode.codec is not None:
        sources[recipe.encode.codec] = True
    labellers = {"votes": recipe.committee is not None, "projector": sources["projector"]}
    available, online = (
        [name for name, yes in kind.items() if yes] for kind in (sources, labellers)
    )
    # Students that differ in their seed alone take the same time.
    jobs = plan_jobs(table.students, 1, table.labels, available, online)
    jobs += plan_plain(jobs) if table.scores else []
    whole_seeds = table.seeds if table.whole_seeds is None else min(table.whole_seeds, table.seeds)
    counts = [(job, whole_seeds if job.group == WHOLE else table.seeds) for job in jobs]
    counts += [(job, 1) for job in plan_trials(jobs, table.lr_factors)]
    return [Task(count, student_parts(units, table, job)) for job, count in counts if count]


def student_parts(units: Units, table: EvaluateTable, job: StudentJob) -> tuple[Part[Unit], ...]:
    """Training and testing one student."""
    recipe, shape = units.recipe, units.shape
    relabel = recipe.relabel or RelabelTable()
    whole = job.group == WHOLE
    count = shape.train if whole else synthetic_shape(recipe, shape).seen
    # Votes in full, or decoded.
    stored = job.group == STUDENTS and job.labels not in ("hard", "learned", "projector")
    batch = min(relabel.batch_size if stored else table.batch_size, count)
    settings = job_settings(table, job, temperature=relabel.temperature)
    steps = settings.epochs * step_count(count, batch)
    online = job.labels in ("votes", "projector") and not stored and not whole
    # Views that are labelled online are drawn with the labels.
    families, dsa = "none", False
    if job.views and not online:
        of_labels = stored or protocol_name(table, job) == "kd"
        families = relabel.augmentation if of_labels else recipe.data.augmentation
        dsa = not of_labels
    step = units.training_step(job.student, batch, families, settings, one_per_batch=dsa)
    tested = units.predictions(job.student, shape.validation if job.trial else shape.test)
    parts = (Part(steps, step), tested)
    return (*parts, Part(steps, online_labels(units, job.labels, batch))) if online else parts


def online_labels(units: Units, source: str, batch: int) -> Unit:
    """One batch of views labelled online by the committee ("votes") or the projector.

    Raises:
        ProjectorError: where the projector's tower cannot be loaded.
    """
    views, generator = relabel_views(units.recipe.relabel or RelabelTable()), fixed_generator()
    votes = source == "votes"
    if votes:
        name, parameters = units.listed, units.size(units.members)
    else:
        name, parameters = units.projector_name, parameter_count(units.projector.visual)

    def work(size: int) -> tuple[Callable[[], object], int]:
        label = units.committee.vote if votes else _labeller(units.projector)
        images = units.images(size)
        return lambda: exhaust(labelled_online(images, label, len(images), views, generator)), 1

    def dry(size: int) -> None:
        seen = seen_by(views, units.meta_batch(size)[0])
        if votes:
            units.meta_committee().vote(seen)
        else:
            _labeller(copy.deepcopy(units.projector).to("meta"))(seen)

    return units.unit(f"online labels of {name}", batch, work, dry, parameters)


def _labeller(projector: Projector) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def label(images: Tensor) -> Tensor:
        return projector.logits(images)

    return label


def _outputs(folder: Path) -> dict[str, str]:
    """The evaluation in its own file, and its copy in the set, which may have been remade."""
    measured = digest_attribute(folder / SET, SET_KIND, "measured")
    return {**output_file(EVALUATION)(folder), f"{SET}:measured": measured}


STAGE = Stage(
    STAGE_ENTRIES[EVALUATE_STAGE],
    run_evaluate,
    _outputs,
    evaluate_units,
    splits=("train", "test"),
    derived=vote_keys,
)
