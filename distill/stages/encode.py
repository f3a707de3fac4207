"""Encode the voted labels of a set in fewer bytes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import projectors
from distill.codec_specs import parse_codec
from distill.context import Context
from distill.encoding.choice import LADDER, choose_by_bytes, choose_by_loss, possible
from distill.encoding.cost import receiver_files, teacher_passes
from distill.encoding.networks import Networks, encode_network
from distill.encoding.votes import encode_votes
from distill.errors import WorkError
from distill.evaluation.jobs import STUDENTS, Job
from distill.evaluation.students import Judged, trained_student
from distill.stages.committee import FILE as COMMITTEE
from distill.stages.committee import has_committee, load_committee
from distill.stages.project import FOLDER as PROJECTOR
from distill.stages.synthetic import FILE as SET
from distill.store.committee import read_committee
from distill.store.encoded import EncodedVotes
from distill.store.files import write_json
from distill.store.sets import SetFile, add_encoded, read_set
from distill.tables import EncodeTable, Recipe
from projectors.codecs import CodecError
from synth.images import gather
from synth.relabel import StoredVotes
from synth.training import accuracy

STAGE = "encode"
FILE = "encoding.json"


def run_encode(context: Context) -> None:
    """Add /labels/<codec> to set.h5, and say in encoding.json which it is."""
    table = context.recipe.encode
    if table is None:
        raise WorkError("the recipe has no [encode] table; add one")
    path = context.run.path / SET
    content = read_set(path)
    name, encoded, found = encode_content(context, content, table)
    add_encoded(path, name, encoded)
    write_json(context.run.path / FILE, found)


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

    networks = find_networks(context)

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


def encode_one(content: SetFile, spec: str, networks: Networks) -> EncodedVotes:
    """Encode the votes of a set by the codec of a spec.

    Raises:
        WorkError: if the set has no votes, they do not fit the codec, or a network is missing.
    """
    _, _, h, w = content.images.shape
    seed = int(content.manifest["seed"])
    votes, parsed = full_votes(content), parse_codec(spec)
    if "network" not in parsed.parts:
        return encode_votes(votes, parsed, seed, (h, w))
    try:
        return encode_network(votes, parsed, seed, networks, gather(content.seen_images))
    except CodecError as error:
        raise WorkError(f"codec {spec}: {error}") from None


def find_networks(context: Context) -> Networks:
    """Committee and projector of the context's run, where there are any."""
    folder = context.run.path
    found = Networks()
    if has_committee(context):
        members, _, _ = read_committee(folder / COMMITTEE)
        weights = load_committee(context).weights
        found = replace(found, members=tuple(members), weights=tuple(weights.tolist()))
    if (folder / PROJECTOR).is_dir():
        external = projectors.projector_bytes(folder / PROJECTOR).external
        fit = context.recipe.projector
        fitted = 0 if fit is None else fit.steps * fit.batch_size
        found = replace(found, projector=folder / PROJECTOR, external=external, fitted=fitted)
    return found


def full_votes(content: SetFile) -> StoredVotes:
    """The votes of a set in full, in memory.

    Raises:
        WorkError: if it has none.
    """
    if content.votes is None:
        raise WorkError("the set has no voted labels in full; run the stage relabel first")
    return replace(content.votes, logits=content.votes.whole)


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
    table = context.recipe.evaluate
    if table is None:
        raise WorkError("encode.max_loss needs students; add an [evaluate] table")
    images, hard = context.split("validation")
    found = []
    for student in table.students:
        for seed in range(table.seeds):
            network = trained_student(
                context, table, Judged(content), Job(STUDENTS, student, labels, seed)
            )
            found.append(accuracy(network, images, hard))
    return sum(found) / len(found)
