"""What can be said of a recipe before torch is imported, which takes seconds. Imports no torch.

`distill.recipes.checks` says the rest, and what only the data can tell.
"""

from __future__ import annotations

from collections.abc import Collection

from distill.errors import RecipeError
from distill.names import FAMILIES, find_source, unknown_families
from distill.recipes.schema import Recipe, kept_epochs
from distill.recipes.specs import parse_network


def check_early(recipe: Recipe) -> None:
    """Raise RecipeError for a source, network, augmentation or teacher that does not exist."""
    try:
        find_source(recipe.data.source)
    except RecipeError as error:
        raise RecipeError(f"data.source: {error}") from None
    check_specs(recipe)
    for families in augmentations(recipe):
        unknown = unknown_families(families)
        if unknown:
            raise RecipeError(
                f"augmentation {families}: unknown augmentation {', '.join(unknown)}; choose from "
                f"{', '.join(FAMILIES)}, or write photos for those that fit photos"
            )


def check_specs(recipe: Recipe, only: Collection[str] | None = None) -> None:
    """Raise RecipeError for a network or teacher that does not exist.

    Args:
        recipe: to be checked.
        only: see `distill.recipes.checks.check_names`.
    """
    for spec in specs_of(recipe, only):
        parse_network(spec)
    if recipe.projector is not None and recipe.committee is not None:
        _check_teacher(recipe.projector.teacher, recipe)


def augmentations(recipe: Recipe) -> list[str]:
    """The families of views that a recipe names, each joined by underscores."""
    own = recipe.committee.recipes.values() if recipe.committee else ()
    tables = (recipe.data, recipe.committee, *own, recipe.relabel, recipe.projector)
    found = [table.augmentation for table in tables if table is not None]
    views = None if recipe.evaluate is None else recipe.evaluate.views
    return [families for families in (*found, views) if families is not None]


def _check_teacher(teacher: str, recipe: Recipe) -> None:
    members = recipe.committee.members if recipe.committee else []
    if teacher == "committee" or teacher in members:
        return
    kept = kept_epochs(recipe) if recipe.experts is not None else ()
    if teacher not in [f"experts:{epoch}" for epoch in kept]:
        epochs = ", ".join(str(epoch) for epoch in kept)
        raise RecipeError(
            f"projector.teacher is {teacher}; write committee, one of its members "
            f"({', '.join(members)}), or experts:EPOCH with an epoch that is kept "
            f"({epochs or 'none: the recipe has no [experts]'})"
        )


def network_specs(recipe: Recipe) -> dict[str, list[str]]:
    """The specs of networks in each table of a recipe."""
    experts, committee, relabel = recipe.experts, recipe.committee, recipe.relabel
    found: dict[str, list[str]] = {"experts": experts.all_networks if experts else []}
    found["committee"] = list(committee.members) if committee else []
    if committee is not None and committee.vote == "measured":
        found["committee"].append(committee.measure_student)
    active = relabel is not None and relabel.active == "robust"
    found["relabel"] = [relabel.active_student] if relabel is not None and active else []
    found["evaluate"] = list(recipe.evaluate.students) if recipe.evaluate else []
    return found


def specs_of(recipe: Recipe, only: Collection[str] | None = None) -> list[str]:
    """The specs of networks in these tables of a recipe; of all for None."""
    return [
        spec
        for table, specs in network_specs(recipe).items()
        if only is None or table in only
        for spec in specs
    ]
