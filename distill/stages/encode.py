"""Encode the voted labels of a set in fewer bytes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from distill.errors import WorkError
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import STUDENTS, StudentJob
from distill.evaluation.students import trained_student
from distill.recipes.build import build_codec
from distill.recipes.loading import check_recipe, with_evaluation
from distill.recipes.schema import Recipe
from distill.recipes.specs import parse_codec
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.encode import EncodeTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import ENCODE_STAGE, ENCODING, SET
from distill.run.context import Context
from distill.run.dry_run import Cost
from distill.run.interrupt import listen
from distill.run.load import step_count
from distill.run.scratch import scratch_context
from distill.sets.additions import add_encoded, check_out
from distill.sets.codec_choice import LADDER, choose_by_bytes, choose_by_loss, fitting, possible
from distill.sets.cost import count_bytes, receiver_files, teacher_passes
from distill.sets.encoded_labels import EncodedVotes
from distill.sets.label_encoding import encode_one, full_votes
from distill.sets.network_labels import is_network
from distill.sets.set_file import (
    ENCODED,
    MEASURED,
    SetFile,
    read_set,
    set_path,
    write_set,
)
from distill.stages.evaluate import online_labels, student_parts
from distill.stages.stage import Stage, output_file, set_parts, vote_keys
from distill.stages.units.networks import Units
from distill.stages.units.shapes import synthetic_shape
from distill.stages.units.unit import NotPricedError, Part, Task, Unit, fixed_generator
from distill.store.documents import read_json
from distill.store.files import write_json
from distill.teachers.loading import find_label_sources
from projectors.codecs import Labels, LabelSpec
from synth.training.prediction import accuracy


def run_encode(context: Context, table: EncodeTable) -> None:
    """Add /labels/<codec> to set.h5, and describe it in encoding.json."""
    path = context.run.path / SET
    content = read_set(path, (ENCODED, MEASURED))
    name, encoded, described = encode_content(context, content, table)
    _check_budget(context, replace(content, votes=None, encoded={name: encoded}), name)
    add_encoded(path, name, encoded)
    write_json(context.run.path / ENCODING, described)


def _check_budget(context: Context, content: SetFile, name: str) -> None:
    """Refuse a network for labels that leaves a set above its budget.

    Raises:
        WorkError: saying by how much.
    """
    budget = context.recipe.budget_bytes
    if budget is None or not is_network(content.encoded[name].payload):
        return
    total = count_bytes(content)["totals"][name]
    if total > budget:
        raise WorkError(
            f"images and labels of {name} take {total:,} bytes, above the budget of {budget:,}; "
            f"set {context.recipe.maker_name}.budget_bytes {total - budget:,} lower"
        )


def encode_content(
    context: Context, content: SetFile, table: EncodeTable
) -> tuple[str, EncodedVotes, dict[str, Any]]:
    """Choose a codec and encode the set's votes: spec, labels, and their description."""
    votes = full_votes(content)
    # Read into memory: every candidate encodes all of them.
    content = replace(content, votes=votes)
    seen = len(content.seen_hard)
    _, _, h, w = content.images.shape
    ladder = possible(LADDER, votes, int(content.manifest["seed"]), (h, w))

    sources = find_label_sources(context)

    # The choice by bytes ends with the codec that it chooses, which is not encoded again.
    @lru_cache(maxsize=1)
    def encode(spec: str) -> EncodedVotes:
        context.stop.check()
        return encode_one(content, spec, sources)

    def size(spec: str) -> int:
        encoded = encode(spec)
        return len(encoded.payload) + encoded.view_bytes(seen)

    lost: float | None = None
    if table.codec is not None:
        name = table.codec
    elif table.target_bytes is not None:
        name, _ = choose_by_bytes(ladder, size, table.target_bytes)
    else:
        reference = _held_out(context, content, "votes")
        name, lost = choose_by_loss(
            ladder,
            lambda spec: _held_out(context, replace(content, encoded={spec: encode(spec)}), spec),
            reference,
            table.max_loss or 0.0,
        )
    encoded = encode(name)
    full = 2 * math.prod(votes.logits.shape)
    files = receiver_files(encoded, seen)
    described = {
        "codec": name,
        "payload": len(encoded.payload),
        "views": encoded.view_bytes(seen),
        "external": encoded.external,
        "files": [asdict(part) for part in files],
        "shipped": sum(part.shipped for part in files),
        "teacher_passes": teacher_passes(encoded, votes, sources),
        "full": full,
        "ratio": full / len(encoded.payload),
    }
    return name, encoded, described if lost is None else {**described, "held_out_loss": lost}


def encoding_name(path: Path) -> str:
    """The spec that encoding.json names.

    Raises:
        WorkError: if it is missing or damaged.
    """
    try:
        return str(read_json(path)["codec"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise WorkError(f"{path} cannot be read ({error}); run the stage encode again") from None


def judging_students(recipe: Recipe) -> dict[str, Any] | None:
    """The [evaluate] table where students' accuracy chooses the codec; None elsewhere."""
    if recipe.encode is None or recipe.encode.max_loss is None or recipe.evaluate is None:
        return None
    return recipe.evaluate.model_dump(mode="json")


def _held_out(context: Context, content: SetFile, labels: str) -> float:
    """Mean accuracy of the recipe's students on the validation split, a fraction."""
    table = context.recipe.table("evaluate")
    images, hard = context.split("validation")
    accuracies = []
    for student in table.students:
        for seed in range(table.seeds):
            network = trained_student(
                context, table, EvaluatedSet(content), StudentJob(STUDENTS, student, labels, seed)
            )
            accuracies.append(accuracy(network, images, hard))
    return sum(accuracies) / len(accuracies)


def encode_set(
    path: Path, choice: dict[str, Any], out: Path | None, device: str | None, quiet: bool
) -> Any:
    """Encode the votes of a set; returns what `distill encode --json` prints.

    Args:
        path: set.h5, or the folder of a run.
        choice: one key of the recipe's [encode] table.
        out: file for a copy of the set that has these labels instead of the full ones; None adds
            them to the set itself.
        device: auto, cpu or cuda; None for the recipe's.
        quiet: show no progress.
    """
    source = set_path(path)
    if out is not None:
        check_out(out)
    content = read_set(source, (ENCODED, MEASURED))
    recipe = check_recipe(content.manifest["recipe"], f"recipe of {source}")
    recipe = with_evaluation(recipe, {})
    recipe = check_recipe({**recipe.model_dump(), "encode": choice}, "encode")
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = scratch_context(Path(scratch), source.parent, recipe, device, quiet, stop)
        name, encoded, described = encode_content(context, content, recipe.table("encode"))
    if out is None:
        add_encoded(source, name, encoded)
    else:
        write_set(out, replace(content, votes=None, encoded={name: encoded}, measured=None))
    return {**described, "set": str(source if out is None else out)}


def encode_units(units: Units, table: EncodeTable) -> list[Task[Unit]]:
    """The labels in one codec, or in those that are tried until one fits.

    By bytes, codecs are tried in turn, and all of them are counted. By accuracy they are
    bisected, and students are trained on each and on the full labels.
    """
    if table.codec is not None:
        return [Task(1, _encoding(units, table.codec))]
    relabel = units.recipe.relabel or RelabelTable()
    count = synthetic_shape(units.recipe, units.shape).seen
    labels = LabelSpec(relabel.epochs, count, units.shape.classes)
    ladder = fitting(LADDER, labels, min(relabel.batch_size, count), seeded=True)
    if table.target_bytes is not None:
        return [Task(1, sum((_encoding(units, spec) for spec in ladder), ()))]
    evaluate = units.recipe.evaluate
    if evaluate is None:
        raise NotPricedError("encode.max_loss needs students; add an [evaluate] table")
    tried = math.ceil(math.log2(len(ladder) + 1))
    tasks = [Task(tried, _encoding(units, ladder[len(ladder) // 2]))]
    for student in evaluate.students:
        job = StudentJob(STUDENTS, student, "votes", 0, trial=True)
        tasks.append(Task((1 + tried) * evaluate.seeds, student_parts(units, evaluate, job)))
    return tasks


def _encoding(units: Units, spec: str) -> tuple[Part[Unit], ...]:
    """Encoding all labels; the time to store a network's weights is negligible."""
    relabel = units.recipe.relabel or RelabelTable()
    count = synthetic_shape(units.recipe, units.shape).seen
    parsed = parse_codec(spec)
    if "network" not in parsed.parts:
        return (Part(1, _encoded_labels(units, relabel, spec)),)
    if "labels" not in parsed.parts:
        return ()
    source = "votes" if parsed.parts["network"].entry.name == "teacher" else "projector"
    batch = min(relabel.batch_size, count)
    online = online_labels(units, source, batch)
    labels = spec.partition("+")[2]
    return (
        Part(relabel.epochs * step_count(count, batch), online),
        Part(1, _encoded_labels(units, relabel, labels)),
    )


def _encoded_labels(units: Units, table: RelabelTable, spec: str) -> Unit:
    """Random labels of all epochs of a batch of images, encoded at once."""
    count, classes = synthetic_shape(units.recipe, units.shape).seen, units.shape.classes

    def work(size: int) -> tuple[Callable[[], object], int]:
        logits = torch.randn((table.epochs, size, classes), generator=fixed_generator())
        labels = Labels(logits.half(), table.temperature)
        codec = build_codec(parse_codec(spec), min(table.batch_size, size))
        return lambda: codec.encode(labels), 1

    def cost(size: int) -> Cost:
        # Labels are stored in float16 and encoded in float32; convolutions and matrix products,
        # which alone are counted, do not occur.
        return Cost(0, (2 + 4) * table.epochs * size * classes)

    name = f"labels of {table.epochs} epochs encoded by {spec}"
    return Unit(name, count, work, cost)


def _outputs(folder: Path) -> dict[str, str]:
    """Only the labels that the stage chose: others may be added to the set by hand."""
    digests = output_file(ENCODING)(folder)
    part = f"labels/{encoding_name(folder / ENCODING)}"
    return {**digests, **set_parts("encoded", part, attributes=False)(folder)}


STAGE = Stage(
    STAGE_ENTRIES[ENCODE_STAGE],
    run_encode,
    _outputs,
    encode_units,
    splits=("validation",),
    derived=lambda recipe: [judging_students(recipe), vote_keys(recipe)],
)
