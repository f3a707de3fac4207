"""Encode the voted labels of a set in fewer bytes."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill.evaluation.jobs import STUDENTS, StudentJob
from distill.evaluation.students import EvaluatedSet, trained_student
from distill.recipes.loading import check_recipe, with_evaluation
from distill.recipes.recipe import Recipe
from distill.recipes.tables.encode import EncodeTable
from distill.run.artefacts import ENCODING, SET
from distill.run.context import Context, scratch_context
from distill.run.interrupt import listen
from distill.sets.codec_choice import LADDER, choose_by_bytes, choose_by_loss, possible
from distill.sets.cost import receiver_files, teacher_passes
from distill.sets.encode import encode_one, full_votes
from distill.sets.encoded import EncodedVotes
from distill.sets.set_file import SetFile, add_encoded, read_set, set_path, write_set
from distill.store.files import write_json
from distill.teachers.loading import find_label_sources
from synth.training.loop import accuracy


def run_encode(context: Context, table: EncodeTable) -> None:
    """Add /labels/<codec> to set.h5, and say in encoding.json which it is."""
    path = context.run.path / SET
    content = read_set(path)
    name, encoded, found = encode_content(context, content, table)
    add_encoded(path, name, encoded)
    write_json(context.run.path / ENCODING, found)


def encode_content(
    context: Context, content: SetFile, table: EncodeTable
) -> tuple[str, EncodedVotes, dict[str, Any]]:
    """Choose a codec and encode the set's votes: spec, labels, and what to say of them."""
    votes = full_votes(content)
    # Held from here on: every candidate reads all of them.
    content = replace(content, votes=votes)
    seen = len(content.seen_hard)
    _, _, h, w = content.images.shape
    ladder = possible(LADDER, votes, int(content.manifest["seed"]), (h, w))

    networks = find_label_sources(context)

    # The choice by bytes ends with the codec that it chooses.
    @lru_cache(maxsize=1)
    def encode(spec: str) -> EncodedVotes:
        context.stop.check()
        return encode_one(content, spec, networks)

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
    found = {
        "codec": name,
        "payload": len(encoded.payload),
        "views": encoded.view_bytes(seen),
        "external": encoded.external,
        "files": [asdict(part) for part in files],
        "shipped": sum(part.shipped for part in files),
        "teacher_passes": teacher_passes(encoded, votes, networks),
        "full": full,
        "ratio": full / len(encoded.payload),
    }
    return name, encoded, found if lost is None else {**found, "held_out_loss": lost}


def encoding_name(path: Path) -> str:
    """The spec that encoding.json names."""
    return str(json.loads(path.read_text(encoding="utf-8"))["codec"])


def judging_students(recipe: Recipe) -> dict[str, Any] | None:
    """The students that decide the choice, where the accuracy decides it."""
    if recipe.encode is None or recipe.encode.max_loss is None or recipe.evaluate is None:
        return None
    return recipe.evaluate.model_dump(mode="json")


def _held_out(context: Context, content: SetFile, labels: str) -> float:
    """Mean accuracy of the recipe's students on the validation split, a fraction."""
    table = context.recipe.table("evaluate")
    images, hard = context.split("validation")
    found = []
    for student in table.students:
        for seed in range(table.seeds):
            network = trained_student(
                context, table, EvaluatedSet(content), StudentJob(STUDENTS, student, labels, seed)
            )
            found.append(accuracy(network, images, hard))
    return sum(found) / len(found)


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
    place = set_path(path)
    content = read_set(place)
    recipe = check_recipe(content.manifest["recipe"], f"recipe of {place}")
    recipe = with_evaluation(recipe, {})
    recipe = check_recipe({**recipe.model_dump(), "encode": choice}, "encode")
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        context = scratch_context(Path(scratch), place.parent, recipe, device, quiet, stop)
        name, encoded, found = encode_content(context, content, recipe.table("encode"))
    if out is None:
        add_encoded(place, name, encoded)
    else:
        write_set(out, replace(content, votes=None, encoded={name: encoded}, measured=None))
    return {**found, "set": str(place if out is None else out)}
