"""A set that grows: images of new classes, or more images, are made by a recipe and merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from distill.errors import WorkError
from distill.recipes.build import build_data
from distill.recipes.loading import check_recipe
from distill.recipes.schema import Recipe
from distill.recipes.tables.match import TAUGHT
from distill.run.artefacts import (
    COMMITTEE_STAGE,
    EXPERTS_STAGE,
    MANIFEST,
    PROJECT_STAGE,
    PROJECTOR,
    SET,
)
from distill.run.engines import Engine
from distill.sets.exchange.classes import match_classes
from distill.sets.merge import class_map, describe_merged, merge_sets, read_given
from distill.sets.merged_source import Given
from distill.sets.rows import VIEWS_LEFT_OUT, take_images
from distill.sets.set_file import SetFile, read_set, set_path, write_set
from distill.stages.grown_labels import LABELLING, check_labelling, write_labelled
from distill.stages.loading import planned
from distill.stages.run_recipe import run_recipe
from distill.stages.select import asks_committee
from distill.store.files import refuse_links
from projectors.files.description import DESCRIPTION

# Below the folder of a grown set: the run that made the new images.
NEW = "new"


@dataclass(frozen=True)
class Growth:
    """What a set grows by.

    Attributes:
        data: source of the new real images.
        recipe: how images are made of them; its data are replaced.
        given: classes of the data -> their names in the grown set, see `merge_sets`.
        labels: whether the recipe also labels the grown set, see `write_labelled`.
    """

    data: str
    recipe: Recipe
    given: Mapping[str, str] = field(default_factory=dict)
    labels: bool = False


def extend_set(
    path: Path, growth: Growth, out: Path, *, quiet: bool = False, engine: Engine | None = None
) -> dict[str, Any]:
    """Write a set and what it grows by as `out`/set.h5; returns what `distill extend --json` says.

    The images of the set stay as they are. The recipe makes images of all classes of the data, in
    the run `out`/new, so that new classes are told from old ones; of these, the images of new
    classes are added, or all of them where no class is new.

    Args:
        path: set.h5, or the folder of a run.
        growth: the data and the recipe.
        out: the folder of the grown set; created, or gone on with if an earlier call was
            interrupted.
        quiet: show no progress.
        engine: where independent work is done; None for this process.

    Raises:
        LimbeckError: of the fitting kind, before anything is made if the set and the data do not
            fit together.
    """
    refuse_links(out)
    for taken in (out / SET, out / MANIFEST):
        if taken.exists():
            raise WorkError(f"--out {out} holds {taken.name} already; name another folder")
    old = read_given(path)
    recipe = _fitting(old.content, growth)
    data = build_data(recipe.data)
    # Names are compared before the work starts.
    known = {"class_names": list(data.class_names)}
    named = {"source": {"name": growth.data, "digest": data.digest}, **known}
    renamed, _ = class_map(old.content.manifest, named, growth.given, (old.name, growth.data))
    before = list(old.content.manifest["class_names"])
    new = [name for name in data.class_names if renamed[name] not in before]
    after = [*before, *(renamed[name] for name in new)]
    whole = match_classes(after, data.class_names) is not None
    if growth.labels:
        _check_labels(recipe, after, growth.data, whole=whole)
    making = _without_labelling(recipe)
    run_recipe(making, out / NEW, making_stages(making), quiet=quiet, engine=engine)
    made = _of_classes(read_set(out / NEW / SET), new)
    content, notes = merge_sets(
        old, Given(made, f"{NEW}/{SET}"), renamed, growth.data if whole else ""
    )
    notes = (*(note for note in notes if note != VIEWS_LEFT_OUT), left_behind(path, old, growth))
    if growth.labels:
        content = write_labelled(content, recipe, out, quiet=quiet, engine=engine)
    else:
        write_set(out / SET, content)
    kept = f"the {len(old.content.hard):,} images of {old.name} stay as they are"
    added = f"{len(made.hard):,} are new" + (f", of {', '.join(new)}" if new else "")
    return describe_merged(out / SET, content, (f"{kept}; {added}", *filter(None, notes)))


def left_behind(path: Path, old: Given, growth: Growth) -> str:
    """A sentence on the labels of a set that do not know what it grew by, and how to get others.

    Args:
        path: set.h5, or the folder of a run.
        old: what is there.
        growth: see `Growth`.
    """
    names = ["votes"] if old.content.votes is not None else []
    names += list(old.content.encoded)
    if (set_path(path).parent / PROJECTOR / DESCRIPTION).is_file():
        names.append("the projector")
    if not names:
        return ""
    said = f"left behind with {old.name}, as they know its classes and images alone: "
    said += ", ".join(names)
    if growth.labels:
        return f"{said}; the labels of the grown set are new"
    return (
        f"{said}; `distill extend {quote(str(path))} ... --labels` makes new ones for all classes"
    )


def _check_labels(recipe: Recipe, after: Sequence[str], data: str, *, whole: bool) -> None:
    """Raise an error where the grown set could not be labelled."""
    check_labelling(recipe)
    if not whole:
        raise WorkError(
            f"--labels trains teachers on real images of all {len(after)} classes of the grown "
            f"set, but {data} lacks some; name data that have all, or leave --labels out"
        )


def _fitting(old: SetFile, growth: Growth) -> Recipe:
    """The recipe for the new data, in the form of the set's images.

    Raises:
        WorkError: where what it makes would not fit the set.
    """
    recipe = growth.recipe
    if old.whitening is not None or recipe.data.zca:
        raise WorkError(
            "whitening belongs to the data that it was fitted to; extend a set that was made with "
            "data.zca = false, by a recipe that says so too"
        )
    factor = getattr(recipe.maker, "formed", 1)
    if factor != old.factor:
        raise WorkError(
            f"the set has a formation factor of {old.factor}, the recipe {factor}; set "
            f"{recipe.maker_name}.factor = {old.factor}"
        )
    _, c, h, w = old.images.shape
    table = {
        **recipe.data.model_dump(mode="json"),
        "source": growth.data,
        "size": h if h == w else None,
        "channels": c,
    }
    raw = {**recipe.model_dump(mode="json"), "data": table}
    return check_recipe(raw, f"recipe {recipe.name}")


def making_stages(recipe: Recipe) -> list[str]:
    """The stages of a recipe that its images need, in order."""
    wanted = {EXPERTS_STAGE, recipe.maker_name}
    if recipe.match is None or recipe.match.labels in TAUGHT:
        wanted.add(COMMITTEE_STAGE)
    if recipe.match is not None and recipe.match.labels == "projector":
        wanted.add(PROJECT_STAGE)
    return [stage.name for stage in planned(recipe) if stage.name in wanted]


def _without_labelling(recipe: Recipe) -> Recipe:
    """The recipe without a committee that only labels, so that none is trained for images alone."""
    if recipe.select is None or asks_committee(recipe.select):
        return recipe
    raw = recipe.model_dump(mode="json")
    raw |= dict.fromkeys((*LABELLING, "encode"))
    if raw["evaluate"] is not None:
        raw["evaluate"] = {**raw["evaluate"], "labels": ["hard"]}
    return check_recipe(raw, f"recipe {recipe.name}")


def _of_classes(content: SetFile, names: Sequence[str]) -> SetFile:
    """The images of some classes; all of them where there are no names."""
    if not names:
        return content
    places = [content.manifest["class_names"].index(name) for name in names]
    chosen = torch.isin(content.hard, torch.tensor(places)).nonzero().flatten()
    return take_images([content], chosen)[0]
