"""`distill show PATH`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.options import allow_code, as_json, debug
from distill.terminal import echo_json, echo_lines


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@allow_code
@as_json
@debug
def show(path: Path, as_json: bool, debug: bool) -> None:
    """Say what PATH is: a run, set.h5, experts.h5, committee.h5, a projector or packed data.

    What is done, how good it is, and what may come next; --json prints all that it states.

    \b
    Example:
      distill show runs/digits/set.h5
    """
    description = describe(path)
    if as_json:
        echo_json(description)
        return
    from distill.commands.show_words import sentences

    echo_lines(sentences(path, description))


def describe(path: Path) -> dict[str, Any]:
    """What is at `path`, as plain values."""
    from distill.errors import WorkError

    if (path / "manifest.json").is_file():
        return _run(path)
    if (path / "projector.json").is_file():
        return _projector(path)
    if (path / "packed.json").is_file():
        return _packed(path)
    if path.is_file():
        return _artefact(path)
    raise WorkError(
        f"{path} is neither a run, a projector, packed data nor a file; name one of these"
    )


def _packed(path: Path) -> dict[str, Any]:
    from distill.store.packed import read_index

    index = read_index(path)
    return {
        "kind": "packed data",
        "source": index.source,
        "digest": index.digest,
        "classes": len(index.class_names),
        "images": {name: sum(counts) for name, counts in index.shards.items()},
    }


def _projector(path: Path) -> dict[str, Any]:
    from distill.errors import WorkError
    from distill.store.documents import read_json
    from distill.store.seals import fits

    try:
        content = read_json(path / "projector.json")
        if fits(content) is False:
            raise ValueError("it is not what was written, by its digest")
        return {"kind": "projector", **content}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise WorkError(
            f"{path / 'projector.json'} cannot be read ({error}); make the projector again"
        ) from None


def _run(path: Path) -> dict[str, Any]:
    from distill.run.keys import MADE_FROM
    from distill.run.manifest import read_manifest

    manifest = read_manifest(path / "manifest.json")
    # What stages were made from stands in the recipe, in shorter words.
    stages = {
        name: {field: value for field, value in entry.items() if field != MADE_FROM}
        for name, entry in manifest["stages"].items()
    }
    return {"kind": "run", **manifest, "stages": stages}


def _artefact(path: Path) -> dict[str, Any]:
    from distill.sets import set_file as sets
    from distill.store import committee, experts
    from distill.store.hdf5 import read_kind

    kind = read_kind(path)
    if kind == experts.EXPERTS_KIND:
        info = experts.read_info(path)
        return {
            "kind": kind,
            "network": ", ".join(own.network for own in info.networks),
            "experts": info.count,
            "epochs": info.epochs,
            "parameters": sum(own.layout.count for own in info.networks),
            "kept epochs": list(info.kept),
            "storage": info.storage,
            "largest error": info.largest_error,
            "imported": None if info.given is None else list(info.given),
        }
    if kind == committee.COMMITTEE_KIND:
        members, data, class_names = committee.read_committee(path)
        accuracies = {member.spec: member.accuracy for member in members}
        return {"kind": kind, "members": accuracies, "data": data, "class_names": class_names}
    content = sets.read_set(path)
    votes = content.votes
    return {
        "kind": kind,
        "images": list(content.images.shape),
        "coded images": None if content.coded is None else len(content.coded),
        "learned labels": content.learned is not None,
        "voted labels": None if votes is None else list(votes.logits.shape),
        "encoded labels": {name: len(encoded.payload) for name, encoded in content.encoded.items()},
        **content.manifest,
        "measured": content.measured,
    }
