"""`distill show PATH`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
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
    """Say what PATH is: a run, a recipe, set.h5, experts.h5, committee.h5, a projector or a pack.

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
    from distill.sets.set_file import lone_set

    if (path / "manifest.json").is_file():
        return _run(path)
    if (path / "projector.json").is_file():
        return _projector(path)
    if (path / "packed.json").is_file():
        return _packed(path)
    if path.is_file() and path.suffix == ".toml":
        return _recipe(path)
    file = lone_set(path)
    if file is not None:
        return _artefact(file)
    raise WorkError(_not_shown(path))


def _not_shown(path: Path) -> str:
    """A line on a path that holds nothing of this program."""
    if path.is_dir() and any(entry.is_dir() for entry in path.iterdir()):
        return (
            f"{path} is a folder, but neither a run nor a projector nor packed data; if it holds "
            f"images in folders of classes: distill inspect {quote(str(path))}"
        )
    return f"{path} is neither a run, a projector, packed data nor a file; name one of these"


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


def _recipe(path: Path) -> dict[str, Any]:
    from distill.recipes.loading import load_recipe

    return {"kind": "recipe", **load_recipe(str(path)).model_dump(mode="json")}


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
