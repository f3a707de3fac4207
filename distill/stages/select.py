"""Select real images, or mosaics of them, as the synthetic set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distill.data import take
from distill.errors import WorkError
from distill.recipes.stages import STAGES
from distill.recipes.tables.select import SelectTable
from distill.run.artefacts import SELECT_STAGE
from distill.run.context import Context
from distill.stages.mosaics import mosaic_units, realistic_mosaics
from distill.stages.stage import Stage, made_images, vote_keys
from distill.stages.units.networks import Units
from distill.stages.units.unit import NotPricedError, Task, Unit
from distill.stages.write_set import write_synthetic
from distill.teachers.loading import load_committee
from synth.committee.features import committee_features
from synth.committee.vote import Committee
from synth.images import Images
from synth.selection import Features, choose_per_class, herding, k_center


def run_select(context: Context) -> None:
    """Make set.h5."""
    table = context.recipe.select
    if table is None:
        raise WorkError("the recipe selects no images; add a [select] table")
    context.run.keep_metrics(SELECT_STAGE)
    with context.progress.task(SELECT_STAGE, 1) as advance:
        images = _images(context, table)
        advance()
    judges = context.recipe.committee if _needs_committee(table) else None
    write_synthetic(context, images, network=", ".join(judges.members) if judges else "none")


def _needs_committee(table: SelectTable) -> bool:
    by_features = table.method in ("herding", "k-center")
    return table.method == "mosaics" or (by_features and table.features == "committee")


def _images(context: Context, table: SelectTable) -> Images:
    """Normalised images [k * ipc, c, h, w] in class order."""
    if table.method == "mosaics":
        return realistic_mosaics(context, load_committee(context), table, SELECT_STAGE)
    if table.method == "random":
        return context.random_real(table.ipc, context.generator(SELECT_STAGE))[0]
    real, labels = context.split("train")
    rules: dict[str, Callable[[Tensor, int], Tensor]] = {"herding": herding, "k-center": k_center}
    committee = load_committee(context) if _needs_committee(table) else None
    features = _features(real, committee)
    rule = rules[table.method]
    return take(real, choose_per_class(features, labels, context.classes, table.ipc, rule))


def _features(images: Images, committee: Committee | None) -> Features:
    return _Pixels(images) if committee is None else committee_features(committee, images)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The pixels themselves as features [m, c * h * w]; those that are asked for are read."""

    images: Images

    def __getitem__(self, places: Any, /) -> Tensor:
        return self.images[places].flatten(1)


def select_units(units: Units, table: SelectTable) -> list[Task[Unit]]:
    """Crops to judge, or nothing to speak of."""
    if table.method == "mosaics":
        return mosaic_units(units, table)
    if table.method == "random":
        return []
    raise NotPricedError(f"{table.method} is not priced")


STAGE = Stage(
    STAGES[SELECT_STAGE],
    run_select,
    made_images,
    select_units,
    splits=("train",),
    derived=vote_keys,
)
