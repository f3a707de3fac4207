"""Parts of a set that are added or replaced, and what belonged to the former ones dropped.

Each addition to set.h5 rewrites the file, as HDF5 would keep the space of replaced data. What is
replaced or dropped is not read, so that a damaged part can be made again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.errors import WorkError
from distill.sets.coded_set import decode_coded
from distill.sets.encoded_labels import EncodedVotes
from distill.sets.set_file import (
    ENCODED,
    MEASURED,
    REFINED,
    SET_KIND,
    VOTES,
    SetFile,
    encoded_names,
    encoded_part,
    read_set,
    write_set,
)
from distill.store.hdf5 import read_kind
from synth.committee.relabel import StoredVotes
from synth.images import Images

# What is left out of a set where its votes, or its refined images, are made anew.
BEFORE_VOTES = (VOTES, ENCODED, MEASURED)

BEFORE_REFINED = (REFINED, *BEFORE_VOTES)


def code_images(content: SetFile, payload: bytes) -> SetFile:
    """The set with coded images in place of its own; whatever belonged to those is dropped.

    Hard and learned labels stay. Voted ones, refined images and measured accuracies were made with
    the images as they were.

    Args:
        content: a set of as many images.
        payload: of `synth.coding.pack_images`, pixels in [0, 1]; with a formation factor, those
            of the stored images, each of which decodes to factor^2.

    Raises:
        CodingError: if the payload is none, or of other images.
    """
    images = decode_coded(payload, content.preprocess, len(content.hard))
    return replace(
        content,
        images=images,
        coded=payload,
        votes=None,
        measured=None,
        refined=None,
        encoded={},
    )


def add_votes(path: Path, votes: StoredVotes) -> None:
    """Add or replace the voted labels; encoded labels and measurements of others are dropped."""
    _rewrite(path, BEFORE_VOTES, votes=votes)


def add_encoded(path: Path, name: str, encoded: EncodedVotes) -> None:
    """Add or replace the labels of one codec.

    What was measured before is dropped, and so are damaged labels of other codecs.
    """
    content = read_set(path, (ENCODED, MEASURED))
    others = [other for other in encoded_names(path) if other != name]
    kept = {other: labels for other in others if (labels := _read_codec(path, other)) is not None}
    write_set(path, replace(content, encoded={**kept, name: encoded}))


def add_refined(path: Path, refined: Images | None) -> None:
    """Replace or drop the refined images; votes and measurements of others are dropped."""
    _rewrite(path, BEFORE_REFINED, refined=refined)


def add_measured(path: Path, measured: dict[str, Any]) -> None:
    """Add or replace the results of an evaluation, without its confusion matrices.

    An HDF5 attribute holds at most 64 kB, and a receiver of a set does not need them.
    """
    kept = {key: value for key, value in measured.items() if key != "confusion"}
    _rewrite(path, (MEASURED,), measured=kept)


def check_out(path: Path) -> None:
    """Raise WorkError where a set is to be written over something else."""
    try:
        other = path.exists() and read_kind(path) != SET_KIND
    except WorkError:
        other = True
    if other:
        raise WorkError(f"--out {path} exists and holds no set; name another file, or remove it")


def _read_codec(path: Path, name: str) -> EncodedVotes | None:
    """The labels of one codec; None where they are damaged."""
    others = [encoded_part(other) for other in encoded_names(path) if other != name]
    try:
        return read_set(path, (*others, VOTES, REFINED, MEASURED)).encoded[name]
    except WorkError:
        return None


def _rewrite(path: Path, leave_out: Collection[str], **parts: Any) -> None:
    write_set(path, replace(read_set(path, leave_out), **parts))
