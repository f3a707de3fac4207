"""What a recipe asks for is checked before any work starts: names first, then against the data."""

from __future__ import annotations

import torch

from distill.build import build_data, build_network, build_views
from distill.data import DataError, RealData, require_per_class
from distill.errors import RecipeError
from distill.specs import parse_network
from distill.tables import Recipe


def check_names(recipe: Recipe) -> None:
    """Raise RecipeError for a network, augmentation or teacher that does not exist."""
    for spec in _specs(recipe):
        parse_network(spec)
    own = recipe.committee.recipes.values() if recipe.committee else ()
    for table in (recipe.data, recipe.committee, *own, recipe.relabel, recipe.projector):
        if table is not None:
            build_views(table.augmentation, one_per_batch=False)
    if recipe.projector is not None and recipe.committee is not None:
        teacher, members = recipe.projector.teacher, recipe.committee.members
        if teacher != "committee" and teacher not in members:
            raise RecipeError(
                f"projector.teacher is {teacher}; write committee, or one of its members: "
                f"{', '.join(members)}"
            )


def check_data(recipe: Recipe) -> RealData:
    """Load a recipe's data; raises RecipeError where the recipe does not fit them.

    Raises:
        RecipeError: for an unknown source, more images per class than there are, or a network
            that these images do not go through.
        WorkError: if the data are missing or wrong.
    """
    data = build_data(recipe.data)
    try:
        per_class = recipe.match.ipc * recipe.match.factor**2
        require_per_class(data.train, per_class, data.class_names)
    except DataError as error:
        raise RecipeError(f"match.ipc: {error}") from None
    _check_measured(recipe, data)
    check_networks(recipe, data)
    return data


def _check_measured(recipe: Recipe, data: RealData) -> None:
    """A measured vote trains its students on real images, of which there must be enough."""
    if recipe.committee is None or recipe.committee.vote != "measured":
        return
    try:
        require_per_class(data.train, recipe.committee.measure_ipc, data.class_names)
    except DataError as error:
        raise RecipeError(f"committee.measure_ipc: {error}") from None


def check_networks(recipe: Recipe, data: RealData) -> None:
    """Raise RecipeError for a network that cannot be built for these images."""
    # On the meta device, where weights have shapes and no memory.
    with torch.device("meta"):
        for spec in _specs(recipe):
            build_network(spec, data.channels, data.size, data.classes, 0)


def _specs(recipe: Recipe) -> list[str]:
    specs = [recipe.experts.network]
    if recipe.committee is not None:
        specs += recipe.committee.members
        specs += [recipe.committee.measure_student] if recipe.committee.vote == "measured" else []
    specs += recipe.evaluate.students if recipe.evaluate else []
    return specs
