"""Evaluate the synthetic set of a run with fresh students, and store the result in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from distill.evaluation.coded import (
    FINALISTS,
    SEARCH_SHARE,
    CodedReal,
    plan_coded,
    plan_search,
)
from distill.evaluation.jobs import (
    CODED,
    CODED_REAL,
    HERDED,
    RANDOM,
    STUDENTS,
    WHOLE,
    StudentJob,
    plan_jobs,
    plan_plain,
)
from distill.evaluation.protocols import (
    batch_size,
    batched_as_labels,
    job_settings,
    on_whole,
    protocol_name,
)
from distill.evaluation.results import judge
from distill.evaluation.small_network import (
    BITS,
    WIDEST,
    SmallNetwork,
    network_spec,
    plan_bits,
    plan_networks,
)
from distill.evaluation.tuning import plan_trials
from distill.recipes.build import relabel_views
from distill.recipes.specs import parse_codec
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.evaluate import SELECTING, EvaluateTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import EVALUATE_STAGE, EVALUATION, SET
from distill.run.context import Context
from distill.run.load import step_count
from distill.sets.additions import add_measured
from distill.sets.coded_images import CODINGS, largest, usable_factors
from distill.sets.set_file import SET_KIND
from distill.stages.stage import Stage, output_file, vote_keys
from distill.stages.units.coded import PACKED, fitting_ipc, packing, set_bytes
from distill.stages.units.networks import Units, seen_by
from distill.stages.units.shapes import (
    DataShape,
    meta_network,
    parameter_count,
    synthetic_shape,
)
from distill.stages.units.unit import Part, Task, Unit, exhaust, fixed_generator
from distill.store.content_digests import digest_attribute
from distill.store.files import write_json
from projectors import Deployed
from synth.augment import Augmentation
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
    recipe = units.recipe
    sources = {
        "hard": True,
        "learned": recipe.keeps_labels,
        "votes": recipe.relabel is not None,
        "projector": recipe.projector is not None,
    }
    labellers = {"votes": recipe.committee is not None, "projector": sources["projector"]}
    if recipe.encode is not None and recipe.encode.codec is not None:
        codec = recipe.encode.codec
        sources[codec] = True
        labellers[codec] = parse_codec(codec).labels_any_view
    available, online = (
        [name for name, yes in kind.items() if yes] for kind in (sources, labellers)
    )
    # Students that differ in their seed alone take the same time.
    jobs = plan_jobs(table.students, 1, table.labels, available, online)
    coded = coded_work(units, table, jobs) if table.equal_bytes else CodedWork([], [], [])
    plain = plan_plain(jobs) if table.scores else []
    jobs += coded.controls
    whole_seeds = table.seeds if table.whole_seeds is None else min(table.whole_seeds, table.seeds)
    counts = [(job, whole_seeds if job.group == WHOLE else table.seeds) for job in jobs + plain]
    counts += [(job, 1) for job in (*plan_trials(table, jobs), *coded.search)]
    tasks = [Task(n, student_parts(units, table, job), mapped=True) for job, n in counts if n]
    return tasks + [Task(1, (part,)) for part in coded.packing]


@dataclass(frozen=True)
class CodedWork:
    """The controls at equal bytes: students, those that choose for them, the coding of images."""

    controls: list[StudentJob]
    search: list[StudentJob]
    packing: list[Part[Unit]]


def coded_work(units: Units, table: EvaluateTable, jobs: list[StudentJob]) -> CodedWork:
    """What the controls cost, with images as small as those of other data under each coding.

    Args:
        units: of the recipe.
        table: [evaluate] of it.
        jobs: of one seed.
    """
    shape, ways = units.shape, list(product(CODINGS, usable_factors(units.shape.size)))
    keys = [(job.student, job.labels) for job in jobs if job.group == STUDENTS]
    offered: dict[str, list[CodedReal]] = {}
    networks: dict[str, list[SmallNetwork]] = {}
    for source in dict.fromkeys(source for _, source in keys):
        budget = set_bytes(units.recipe, shape, source)
        fitted = [
            CodedReal(spec, fitting_ipc(spec, budget, shape, factor**2), 0, factor)
            for spec, factor in ways
        ]
        offered[source] = sorted(fitted, key=lambda real: real.per_class)
        networks[source] = [_fitting_network(shape, bits, budget) for bits in BITS]
    # Which of them win is not known before: those with as many images as half of them.
    middle = len(ways) // 2
    first = middle - FINALISTS // 2
    finalists = {key: offered[key[1]][first : first + FINALISTS] for key in keys}
    chosen = {key: offered[key[1]][middle] for key in keys}
    short = max(1, table.epochs // SEARCH_SHARE)
    search = plan_search(jobs, {key: offered[key[1]] for key in keys}, short)
    search += plan_search(jobs, finalists)
    trials = [job for job, _ in search]
    trials += [job for job, _ in plan_bits(jobs, table.whole_epochs, networks)]
    controls = [
        *plan_coded(jobs, CODED, chosen),
        *plan_coded(jobs, HERDED, chosen),
        *plan_networks(jobs, {source: found[0] for source, found in networks.items()}),
    ]
    packed = [(PACKED, real) for reals in offered.values() for real in reals]
    used = {(source, real): None for (_, source), real in chosen.items()}
    packed += [(2 * table.seeds + PACKED, real) for _, real in used]
    parts = [
        Part(times, packing(units, real.coding, real.ipc * shape.classes)) for times, real in packed
    ]
    return CodedWork(controls, trials, parts)


def _fitting_network(shape: DataShape, bits: int, budget: int) -> SmallNetwork:
    """About the widest network whose weights fit."""

    def size(width: int) -> int:
        return parameter_count(meta_network(network_spec(width), shape)) * bits // 8

    return SmallNetwork(max(1, largest(size, budget, WIDEST)), bits)


def student_parts(units: Units, table: EvaluateTable, job: StudentJob) -> tuple[Part[Unit], ...]:
    """Training and testing one student."""
    recipe, shape = units.recipe, units.shape
    relabel = recipe.relabel or RelabelTable()
    whole = on_whole(job)
    synthetic = synthetic_shape(recipe, shape)
    # Of random real images there are as many as the set stores.
    count = synthetic.stored if job.group == RANDOM else synthetic.seen
    if whole:
        count = shape.train
    elif job.ipc is not None:
        count = shape.classes * job.ipc * job.factor**2
    alike = batched_as_labels(table, job)
    # Votes in full, or decoded.
    stored = alike and job.group == STUDENTS
    batch = min(relabel.batch_size, count) if alike else batch_size(table, count, shape.classes)
    settings = job_settings(table, job, temperature=relabel.temperature)
    steps = settings.epochs * step_count(count, batch)
    unlabelled = stored or whole or job.group in CODED_REAL
    source = None if unlabelled else _online_source(job.labels)
    # Views that are labelled online are drawn with the labels.
    families, dsa = "none", False
    if job.views and source is None:
        kd = protocol_name(table, job) == "kd"
        families = relabel.augmentation if stored or kd else recipe.data.augmentation
        if table.views is not None and not whole:
            families = table.views
        dsa = not (stored or kd)
    step = units.training_step(job.student, batch, families, settings, one_per_batch=dsa)
    tested = units.predictions(job.student, shape.validation if job.trial else shape.test)
    parts = (Part(steps, step), tested)
    if source is None:
        return parts
    # Students of a seed see the same views, and a process remembers their labels.
    seen = f"labels of {job.group} by {job.labels}, {'views' if job.views else 'plain'}"
    return (*parts, Part(steps, online_labels(units, source, batch), seen))


def _online_source(labels: str) -> str | None:
    """What labels views as they are drawn, "votes" or "projector"; None for labels of images."""
    if labels in ("votes", "projector"):
        return labels
    network = None if labels in ("hard", "learned") else parse_codec(labels).parts.get("network")
    if network is None:
        return None
    return "votes" if network.entry.name == "teacher" else "projector"


def online_labels(units: Units, source: str, batch: int, views: Augmentation | None = None) -> Unit:
    """One batch of views labelled online by the committee ("votes") or the projector.

    Args:
        units: of the recipe.
        source: "votes" or "projector".
        batch: images.
        views: their augmentation; None for that of [relabel].

    Raises:
        ProjectorError: where the projector's tower cannot be loaded.
    """
    if views is None:
        views = relabel_views(units.recipe.relabel or RelabelTable())
    generator, votes = fixed_generator(), source == "votes"
    if votes:
        name, parameters = units.listed, units.size(units.members)
    else:
        name, parameters = units.projector_name, parameter_count(units.projector.visual)

    def work(size: int) -> tuple[Callable[[], object], int]:
        label = units.committee.vote if votes else _labeller(units.deployed)
        images = units.images(size)
        return lambda: exhaust(labelled_online(images, label, len(images), views, generator)), 1

    def dry(size: int) -> None:
        seen = seen_by(views, units.meta_batch(size)[0])
        if votes:
            units.meta_committee().vote(seen)
        else:
            _labeller(Deployed(copy.deepcopy(units.projector).to("meta")))(seen)

    return units.unit(f"online labels of {name}", batch, work, dry, parameters)


def _labeller(projector: Deployed) -> Callable[[Tensor], Tensor]:
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
    selecting=SELECTING,
)
