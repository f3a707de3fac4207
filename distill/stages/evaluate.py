"""Judge the synthetic set of a run by fresh students, and write what was found into it."""

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
from distill.sets.set_file import SET_KIND, add_measured
from distill.stages.stage import Stage, output_file, vote_keys
from distill.stages.units.networks import Units, seen_by
from distill.stages.units.shapes import parameter_count, synthetic_shape
from distill.stages.units.unit import (
    NotPricedError,
    Part,
    Task,
    Unit,
    batches_of,
    exhaust,
    fixed_generator,
)
from distill.store.files import write_json
from distill.store.hdf5 import digest_attribute
from projectors import Projector
from synth.committee.relabel import labelled_online


def run_evaluate(context: Context, table: EvaluateTable) -> None:
    """Make evaluation.json and the attribute `measured` of set.h5."""
    context.run.keep_metrics(EVALUATE_STAGE)
    log = context.checkpoint(EVALUATE_STAGE).folder / "jobs.jsonl"
    found = judge(context, table, context.run.path / SET, log)
    write_json(context.run.path / EVALUATION, found)
    add_measured(context.run.path / SET, found)


def evaluate_units(units: Units, table: EvaluateTable) -> list[Task[Unit]]:
    """Students, who do not wait for each other."""
    if table.equal_bytes:
        raise NotPricedError("the control of evaluate.equal_bytes is not priced")
    recipe = units.recipe
    there = {
        "hard": True,
        "learned": recipe.match is not None,
        "votes": recipe.relabel is not None,
        "projector": recipe.projector is not None,
    }
    if recipe.encode is not None and recipe.encode.codec is not None:
        there[recipe.encode.codec] = True
    labellers = {"votes": recipe.committee is not None, "projector": there["projector"]}
    available, online = ([name for name, yes in kind.items() if yes] for kind in (there, labellers))
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
    # Votes in full, or as a codec gives them back.
    stored = job.group == STUDENTS and job.labels not in ("hard", "learned", "projector")
    batch = min(relabel.batch_size if stored else table.batch_size, count)
    settings = job_settings(table, job, temperature=relabel.temperature)
    steps = settings.epochs * batches_of(count, batch)
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
        ask = units.committee.vote if votes else _ask(units.projector)
        images = units.images(size)
        return lambda: exhaust(labelled_online(images, ask, len(images), views, generator)), 1

    def dry(size: int) -> None:
        seen = seen_by(views, units.meta_batch(size)[0])
        if votes:
            units.meta_committee().vote(seen)
        else:
            _ask(copy.deepcopy(units.projector).to("meta"))(seen)

    return units.unit(f"online labels of {name}", batch, work, dry, parameters)


def _ask(projector: Projector) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def ask(images: Tensor) -> Tensor:
        return projector.logits(images)

    return ask


def _outputs(folder: Path) -> dict[str, str]:
    """The evaluation stands in a file of its own and in the set, which may be made again."""
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
