"""What to say of a projector whose tower sees too little in the images. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distill.recipes.schema import Recipe

# Towers that were trained on drawn characters, and on nothing else.
_CHARACTERS = ("glyphclip",)

_FROM_A_SEED = "config:tiny-vit"

_WHAT_TO_DO = (
    f'set projector.tower to "open_clip:MODEL:PRETRAINED", or to "{_FROM_A_SEED}" with a '
    "projector.rank of 16 or more (drawn from a seed, adapted to your own images), or leave "
    "[projector] out and keep the votes"
)

_WITH_THAT_TOWER = (
    "raise projector.steps or projector.rank, set projector.tower to "
    '"open_clip:MODEL:PRETRAINED", or leave [projector] out and keep the votes'
)


def tower_note(recipe: Recipe, channels: int) -> str:
    """A sentence on a tower that does not fit colour images, "" where nothing is known against it.

    Args:
        recipe: that is to be planned or run.
        channels: of its images.
    """
    table = recipe.projector
    if table is None or channels != 3 or table.tower not in _CHARACTERS:
        return ""
    return (
        f"projector.tower = {table.tower} knows characters, and these are colour images; "
        f"{_WHAT_TO_DO}"
    )


def agreement_note(agreement: float, nearest_mean: float, tower: str) -> str:
    """A sentence on a projector that agrees with its teacher less than class means of pixels do.

    Args:
        agreement: held-out agreement with the teacher, in [0, 1].
        nearest_mean: the same of the nearest class mean of the pixels, in [0, 1].
        tower: of the projector, as in a recipe.

    Returns:
        "" for a projector that agrees more often.
    """
    if agreement > nearest_mean:
        return ""
    remedy = _WITH_THAT_TOWER if tower == _FROM_A_SEED else _WHAT_TO_DO
    return (
        f"the projector has its teacher's class on {agreement:.1%} of the held-out images, and the "
        f"nearest class mean of their pixels on {nearest_mean:.1%}: the tower is too weak, or "
        f"projector.steps are too few; {remedy}"
    )


def agreement_note_of(metrics: Iterable[Mapping[str, Any]], recipe: Mapping[str, Any]) -> str:
    """`agreement_note` of the last fit in a run's metrics; "" where none was compared."""
    found = [row for row in metrics if row.get("stage") == "project" and "nearest_mean" in row]
    if not found:
        return ""
    tower = str((recipe.get("projector") or {}).get("tower", ""))
    last = found[-1]
    return agreement_note(float(last["held_out_agreement"]), float(last["nearest_mean"]), tower)
