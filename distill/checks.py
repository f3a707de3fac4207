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
    for table in (recipe.data, recipe.committee, recipe.relabel, recipe.projector):
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
    check_networks(recipe, data)
    return data


def check_networks(recipe: Recipe, data: RealData) -> None:
    """Raise RecipeError for a network that cannot be built for these images."""
    # On the meta device, where weights have shapes and no memory.
    with torch.device("meta"):
        for spec in _specs(recipe):
            build_network(spec, data.channels, data.size, data.classes, 0)


def _specs(recipe: Recipe) -> list[str]:
    specs = [recipe.experts.network]
    specs += recipe.committee.members if recipe.committee else []
    specs += recipe.evaluate.students if recipe.evaluate else []
    return specs
