"""The stages of a run in their order, with their code, and those that a recipe asks for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from distill.errors import WorkError
from distill.recipes.schema import Recipe
from distill.recipes.stages import STAGE_ENTRIES, StageEntry
from distill.stages.stage import Stage


def _stage(entry: StageEntry) -> Stage:
    stage: Stage = importlib.import_module(f"distill.stages.{entry.module}").STAGE
    return stage


STAGES: dict[str, Stage] = {name: _stage(entry) for name, entry in STAGE_ENTRIES.items()}


def planned(recipe: Recipe) -> list[Stage]:
    """The stages whose tables the recipe has."""
    return [
        stage
        for stage in STAGES.values()
        if all(getattr(recipe, table) is not None for table in stage.tables)
    ]


def check_stages(recipe: Recipe, names: Sequence[str]) -> None:
    """Raise WorkError for a stage whose tables the recipe lacks."""
    planned_names = [stage.name for stage in planned(recipe)]
    for name in names:
        if name not in planned_names:
            tables = ", ".join(STAGES[name].tables) if name in STAGES else ""
            raise WorkError(
                f"stage {name} is not part of this recipe, which needs the tables {tables}; add "
                f"them, or choose from {', '.join(planned_names)}"
            )
