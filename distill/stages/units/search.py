"""What a search within a budget costs, and what it may leave, without the data."""

from __future__ import annotations

from distill.recipes.schema import Recipe
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.select import SelectTable
from distill.run.load import step_count
from distill.stages.search import (
    SHORT_BATCH,
    Candidate,
    Searching,
    searched_codings,
    searched_factors,
    short_epochs,
    short_network,
    with_candidate,
)
from distill.stages.units.coded import PACKED, fitting_ipc, label_network_bytes, packing
from distill.stages.units.networks import Units
from distill.stages.units.shapes import DataShape
from distill.stages.units.unit import Part, Task, Unit
from synth.training.loop import TrainSettings


def search_units(units: Units, table: Searching) -> list[Task[Unit]]:
    """Short trainings, one for each way to keep images that `search` tries."""
    recipe, shape = units.recipe, units.shape
    lr = (recipe.evaluate or EvaluateTable.model_construct()).lr
    spec = short_network(recipe)
    parts = []
    for candidate in planned_candidates(recipe, table, shape):
        count = candidate.ipc * candidate.factor**2 * shape.classes
        batch, epochs = min(count, SHORT_BATCH), short_epochs(count)
        step = units.training_step(
            spec,
            batch,
            recipe.data.augmentation,
            TrainSettings(epochs, lr),
            one_per_batch=True,
        )
        packed = packing(units, candidate.images, candidate.ipc * shape.classes)
        parts += [
            Part(epochs * step_count(count, batch), step),
            units.predictions(spec, shape.validation),
            Part(PACKED, packed),
        ]
    return [Task(1, tuple(parts))]


def planned_candidates(recipe: Recipe, table: Searching, shape: DataShape) -> list[Candidate]:
    """About what a search tries, without the data that say how many images fit."""
    room = (table.budget_bytes or 0) - label_network_bytes(recipe, shape)
    found = []
    for factor in searched_factors(table, shape.size):
        for spec in searched_codings(table):
            fitting = fitting_ipc(spec, room, shape, factor**2)
            if isinstance(table, SelectTable):
                ipc = min(table.ipc, fitting)
            else:
                ipc = fitting if "ipc" in table.search else table.ipc
            found.append(Candidate(spec, ipc, factor))
    return found


def planned_search(recipe: Recipe, table: Searching, shape: DataShape) -> Searching:
    """The table as a search may leave it: which candidate wins is known after it alone.

    Taken is the one that has more images than half of the others.
    """
    tried = planned_candidates(recipe, table, shape)
    seen = sorted(tried, key=lambda one: one.ipc * one.factor**2)
    return with_candidate(table, seen[len(seen) // 2], shape.classes)
