"""Teachers that label the views of inner steps: the values votes and projector of match.labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from distill.recipes.schema import Recipe
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import COMMITTEE_STAGE, PROJECT_STAGE
from distill.run.context import Context
from distill.stages.stage import vote_keys
from distill.teachers.loading import load_committee, load_projector
from distill.teachers.voting import use_batch_statistics, voter
from projectors import Deployed
from synth.matching.start import class_labels
from synth.matching.view_labels import ViewLabels


def view_labels(context: Context, table: MatchTable) -> ViewLabels | None:
    """What labels the views of inner steps; None where the set has labels of its own.

    Read once for a stage; scores of members that are measured are then kept in votes.json.

    Raises:
        WorkError: if the committee or the projector of the run cannot be used.
    """
    if not table.taught:
        return None

    def opened() -> ViewLabels:
        label = _votes(context) if table.labels == "votes" else _projector(context)
        return ViewLabels(
            label,
            class_labels(context.classes, table.ipc * table.factor**2),
            label_temperature(table, context.recipe.relabel or RelabelTable()),
            table.class_share,
        )

    return context.once("view labels", opened)


def label_temperature(table: MatchTable, relabel: RelabelTable) -> float:
    """The temperature of labels and students in inner steps; by default that of later students."""
    return relabel.temperature if table.label_temperature is None else table.label_temperature


def _votes(context: Context) -> Callable[[Tensor], Tensor]:
    """The committee's vote, as the stage relabel has it."""
    committee, relabel = load_committee(context), context.recipe.relabel or RelabelTable()
    vote = voter(relabel, committee, use_batch_statistics(context, relabel, committee))

    def label(views: Tensor) -> Tensor:
        # A teacher may keep more threads busy than the network whose steps are matched.
        with context.threads(len(views), *committee.members):
            return vote(views)

    return label


def _projector(context: Context) -> Callable[[Tensor], Tensor]:
    """The logits of the run's projector, as students get them."""
    projector = Deployed(load_projector(context))

    def label(views: Tensor) -> Tensor:
        with context.threads(len(views), projector):
            return projector.logits(views)

    return label


def taught_inputs(recipe: Recipe) -> tuple[str, ...]:
    """The stage whose networks label views while matching, if any does."""
    if recipe.match is None or not recipe.match.taught:
        return ()
    return (COMMITTEE_STAGE,) if recipe.match.labels == "votes" else (PROJECT_STAGE,)


def taught_keys(recipe: Recipe) -> Any:
    """The keys of [committee] and [relabel] that decide these labels."""
    if recipe.match is None or not recipe.match.taught:
        return None
    relabel = recipe.relabel or RelabelTable()
    temperature = label_temperature(recipe.match, relabel)
    if recipe.match.labels == "projector":
        return {"temperature": temperature}
    keys: dict[str, Any] = {"temperature": temperature, "bssl": relabel.bssl}
    keys["aggregate"] = relabel.aggregate
    if recipe.committee is not None and recipe.committee.vote == "measured":
        # Their students see these views at this temperature.
        keys["measured"] = [relabel.augmentation, relabel.temperature]
    return {"relabel": keys, "votes": vote_keys(recipe)}
