"""Teachers that label a set, narrowed until they fit into their share of its budget."""

from __future__ import annotations

from distill.errors import RecipeError
from distill.recipes.schema import Recipe
from distill.recipes.specs import network_width, with_width
from distill.sets.coded_images import largest
from distill.sets.network_labels import expected_bytes


def narrow_members(recipe: Recipe, channels: int, size: tuple[int, int], classes: int) -> Recipe:
    """The recipe with the widest members that take at most `committee.budget_share` of its budget.

    All become narrower in the same proportion, and none wider than the recipe has it. A recipe
    without such a share stays as it is.

    Args:
        recipe: its [encode] keeps the committee, within a budget.
        channels: of the images.
        size: (h, w) of the images.
        classes: of the data.

    Raises:
        RecipeError: if not even members of width 1 fit.
    """
    committee, budget = recipe.committee, recipe.budget_bytes
    if committee is None or budget is None or committee.budget_share is None:
        return recipe
    widths = [network_width(spec) for spec in committee.members]
    most, room = max(widths), int(committee.budget_share * budget)

    def narrowed(width: int) -> Recipe:
        specs = {
            spec: with_width(spec, max(1, own * width // most))
            for spec, own in zip(committee.members, widths, strict=True)
        }
        members = [specs[spec] for spec in committee.members]
        recipes = {specs[spec]: own for spec, own in committee.recipes.items()}
        table = committee.model_copy(update={"members": members, "recipes": recipes})
        return recipe.model_copy(update={"committee": table})

    def taken(width: int) -> int:
        return expected_bytes(narrowed(width), channels, size, classes)

    fitting = largest(taken, room, most, first=most, tolerance=0.0)
    if not fitting:
        raise RecipeError(
            f"committee.budget_share leaves {room:,} of {budget:,} bytes for the networks that "
            f"label the views, but of width 1 they take {taken(1):,}; allow more bytes, or a "
            "larger share"
        )
    return narrowed(fitting)
