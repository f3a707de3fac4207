"""Labels of all classes for a set that has grown: votes of a committee, and a projector."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from distill.errors import InterruptedRunError, RecipeError
from distill.recipes.checks import check_names, check_networks, missing_packages
from distill.recipes.loading import check_recipe
from distill.recipes.schema import Recipe
from distill.run.artefacts import COMMITTEE, PROJECT_STAGE, PROJECTOR, RELABEL_STAGE, SET
from distill.run.engines import Engine
from distill.run.interrupt import listen
from distill.run.reuse import take_outputs
from distill.run.scratch import scratch_context
from distill.sets.set_file import SetFile, read_set, write_set
from distill.sets.towers import check_tower
from distill.stages.committee import run_committee
from distill.stages.project import EXPERTS_PREFIX, run_project
from distill.stages.relabel import run_relabel
from distill.store.files import digest_json
from projectors.files.description import DESCRIPTION

# The tables that label a set; those that made its images are another recipe's.
LABELLING = ("committee", "relabel", "projector")


def check_labelling(recipe: Recipe) -> None:
    """Raise an error where a recipe cannot label a grown set.

    Raises:
        RecipeError: for a recipe without a committee, or with nothing that it labels.
        WorkError: for a package or a tower that cannot be had.
    """
    table = recipe.projector
    if recipe.committee is None or (recipe.relabel is None and table is None):
        raise RecipeError(
            f"--labels needs a recipe with [committee], and [relabel] or [projector]; recipe "
            f"{recipe.name} has not: add them, or leave --labels out"
        )
    if table is not None and table.teacher.startswith(EXPERTS_PREFIX):
        raise RecipeError(
            f"projector.teacher is {table.teacher}, but --labels trains no experts for the grown "
            "set; write committee"
        )
    for sentence in missing_packages(recipe, (RELABEL_STAGE, PROJECT_STAGE)):
        raise RecipeError(sentence)
    if table is not None:
        check_tower("projector.tower", table.tower, recipe.seed)


def write_labelled(
    content: SetFile, made_by: Recipe, out: Path, *, quiet: bool, engine: Engine | None
) -> SetFile:
    """Write a grown set with votes, and its committee and projector beside it, into `out`.

    Teachers and projector are trained on the real data of all its classes, normalised as its
    images are.

    Args:
        content: the set, which states real data of all its classes.
        made_by: the recipe whose [committee], [relabel] and [projector] say how.
        out: folder of the grown set.
        quiet: show no progress.
        engine: where independent work is done; None for this process.

    Returns:
        The set as it was written.

    Raises:
        LimbeckError: of the fitting kind; then nothing was written.
    """
    recipe = _labelling_recipe(content, made_by)
    check_names(recipe, only=LABELLING)
    resolved = recipe.model_dump(mode="json")
    manifest = {**content.manifest, "recipe": resolved, "recipe_digest": digest_json(resolved)}
    with tempfile.TemporaryDirectory() as scratch, listen() as stop:
        made = Path(scratch)
        context = scratch_context(made, made, recipe, None, quiet, stop)
        context.engine = engine or context.engine
        context.normalise_as(content.preprocess)
        check_networks(recipe, context.data, only=LABELLING)
        write_set(made / SET, replace(content, manifest=manifest))
        try:
            run_committee(context, context.recipe.table("committee"))
            if recipe.projector is not None:
                run_project(context, context.recipe.table("projector"))
            if recipe.relabel is not None:
                run_relabel(context, context.recipe.table("relabel"))
        except InterruptedRunError:
            raise InterruptedRunError(
                f"interrupted; the new images are kept in {out}, the labels are not: run the same "
                "command to go on"
            ) from None
        labellers = [COMMITTEE] if recipe.projector is None else [COMMITTEE, PROJECTOR]
        take_outputs(made, labellers, out, is_own=_is_projector)
        write_set(out / SET, read_set(made / SET))
    return read_set(out / SET)


def _labelling_recipe(content: SetFile, made_by: Recipe) -> Recipe:
    """The set's recipe with the other one's ways of labelling, and its label sources."""
    raw, other = dict(content.manifest["recipe"]), made_by.model_dump(mode="json")
    raw |= {name: other[name] for name in (*LABELLING, "device")}
    raw.pop("encode", None)
    if raw["committee"] is not None:
        # The grown set has no budget that teachers could take a share of.
        raw["committee"] = {**raw["committee"], "budget_share": None}
    if raw.get("evaluate") is not None and other["evaluate"] is not None:
        raw["evaluate"] = {**raw["evaluate"], "labels": other["evaluate"]["labels"]}
    return check_recipe(raw, "recipe of the grown set")


def _is_projector(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()
