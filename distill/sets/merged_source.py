"""What a merged set says about the real data that its images were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.errors import WorkError
from distill.recipes.build import build_data
from distill.recipes.loading import check_recipe
from distill.sets.exchange.classes import match_classes, shown_names
from distill.sets.set_file import SetFile
from distill.store.files import digest_json


@dataclass(frozen=True)
class Given:
    """A set to merge, and where it comes from.

    Attributes:
        content: the set.
        name: of its file, for provenance and messages.
    """

    content: SetFile
    name: str


def state_source(
    first: Given, second: Given, names: Sequence[str], data: str
) -> tuple[dict[str, Any], str]:
    """Recipe, source and provenance of a merged set, and what to say about its real data.

    Args:
        first: the set whose settings the merged one has.
        second: the other.
        names: classes of the merged set.
        data: source of real images of all classes, or "".

    Returns:
        Attributes that replace those of the first set, and a sentence or "".

    Raises:
        RecipeError: for data that do not exist.
        WorkError: if the data do not fit, or a set tells no usable provenance.
    """
    merged = [*_origins(first), *_origins(second)]
    manifest = first.content.manifest
    if data:
        stated = _of_data(first.content, names, data)
        return {**stated, "source": {**stated["source"], "merged": merged}}, ""
    source = {key: manifest["source"][key] for key in ("name", "digest")}
    other = second.content.manifest["source"]
    if names == manifest["class_names"]:
        same = source["digest"] == other["digest"]
        note = (
            ""
            if same or not source["digest"]
            else f"students will be tested on the data of {first.name}; they must not be among "
            f"those that {second.name} was made from"
        )
        return {"source": {**source, "merged": merged}}, note
    both = dict.fromkeys(name for name in (source["name"], other["name"]) if name)
    source = {"name": " + ".join(both), "digest": ""}
    return {"source": {**source, "merged": merged}}, (
        "the set cannot be evaluated before it is merged with --data, real images of all "
        f"{len(names)} classes"
    )


def _origins(part: Given) -> list[dict[str, Any]]:
    """Where the images of a set come from: one entry, or those of a set that was merged."""
    manifest = part.content.manifest
    source = dict(manifest["source"])
    if "merged" in source:
        earlier = source["merged"]
        if not isinstance(earlier, list) or not all(map(_is_origin, earlier)):
            raise WorkError(f"{part.name} does not say what it was merged from; make it again")
        return earlier
    return [
        {
            "file": part.name,
            **source,
            "classes": len(manifest["class_names"]),
            "images": len(part.content.hard),
            "seed": manifest["seed"],
            "network": manifest["network"],
            "recipe": manifest["recipe"].get("name", ""),
            "recipe_digest": manifest["recipe_digest"],
        }
    ]


def _is_origin(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("file"), str)
        and isinstance(entry.get("images"), int)
    )


def _of_data(content: SetFile, names: Sequence[str], data: str) -> dict[str, Any]:
    """Recipe and source of a set whose students are tested on some real images.

    Raises:
        WorkError: if the set is whitened, or the data lack a class or have other images.
    """
    if content.whitening is not None:
        raise WorkError("a whitened set is tested on the data that it was made from; omit --data")
    _, c, h, w = content.images.shape
    raw = dict(content.manifest["recipe"])
    own: Any = raw.get("data")
    own = own if isinstance(own, dict) else {}
    kept = {key: own[key] for key in ("validation", "augmentation") if key in own}
    table = {**kept, "source": data, "size": h if h == w else None, "channels": c}
    real = build_data(check_recipe({**raw, "data": table}, "recipe of the first set").data)
    if (real.channels, *real.size) != (c, h, w):
        raise WorkError(
            f"images of {data} are {(real.channels, *real.size)}, those of the sets {(c, h, w)}; "
            "name data of their size"
        )
    found = match_classes(names, real.class_names)
    if found is None:
        raise WorkError(
            f"--data {data} has classes {shown_names(real.class_names)}, the sets "
            f"{shown_names(names)}; name data that have all classes of the sets"
        )
    if found != tuple(range(len(real.class_names))):
        table["classes"] = [real.class_names[place] for place in found]
    recipe = check_recipe({**raw, "data": table}, "recipe of the first set")
    digest = build_data(recipe.data).digest if "classes" in table else real.digest
    resolved = recipe.model_dump(mode="json")
    return {
        "recipe": resolved,
        "recipe_digest": digest_json(resolved),
        "source": {"name": data, "digest": digest},
    }
