"""Select real images, or mosaics of them, as the synthetic set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distill.data import select_images
from distill.errors import WorkError
from distill.names import resolve, selection
from distill.recipes.schema import Recipe
from distill.recipes.stages import STAGE_ENTRIES
from distill.recipes.tables.select import SelectTable
from distill.run.artefacts import SELECT_STAGE
from distill.run.context import Context
from distill.sets.coded_set import pack_labels, unpack_labels
from distill.stages.budget import coded_images, image_budget, kept_network_keys, pack_within
from distill.stages.difficulty import difficulty_units
from distill.stages.mosaics import mosaic_units, realistic_mosaics
from distill.stages.stage import Stage, made_images, vote_keys
from distill.stages.units.networks import Units
from distill.stages.units.unit import NotPricedError, Task, Unit
from distill.stages.write_set import write_synthetic
from distill.teachers.loading import load_committee
from synth.committee.features import committee_features
from synth.committee.vote import Committee
from synth.images import Images, gather, images_at
from synth.selection import Features, Pixels, by_difficulty, choose_per_class

# Images that the committee is asked about at once.
_VOTED_AT_ONCE = 256


def run_select(context: Context, table: SelectTable) -> None:
    """Make set.h5."""
    context.run.keep_metrics(SELECT_STAGE)
    with context.progress.task(SELECT_STAGE, 1) as advance:
        images = _images(context, table)
        advance()
    learned, payload = _labels(context, table, images)
    write_synthetic(
        context,
        images,
        network=", ".join(_judges(context, table)) or "none",
        learned=learned,
        coded=_coded(context, table, images),
        coded_labels=payload,
    )


def _judges(context: Context, table: SelectTable) -> Sequence[str]:
    """The networks that the choice depends on."""
    if selection(table.method).reads == "experts":
        return [context.recipe.table("experts").network]
    committee = context.recipe.committee if asks_committee(table) else None
    return committee.members if committee else []


def _labels(
    context: Context, table: SelectTable, images: Images
) -> tuple[Tensor | None, bytes | None]:
    """Label logits [n, k] of the images as they were before they are coded, and their bytes.

    No bytes without a budget; neither where the classes are the labels.

    Raises:
        WorkError: if they do not fit into their share of the budget.
    """
    if table.labels == "hard":
        return None, None
    committee = load_committee(context)
    parts = torch.arange(len(images)).split(_VOTED_AT_ONCE)
    with context.threads(_VOTED_AT_ONCE, *committee.members):
        votes = [committee.vote(images_at(images, part).to(context.device)).cpu() for part in parts]
    logits = torch.cat(votes) / table.label_temperature
    if table.label_bytes is None:
        return logits, None
    payload = pack_labels(logits, table.label_bytes)
    if payload is None:
        raise WorkError(
            f"the votes on {len(images):,} images do not fit into {table.label_bytes:,} bytes, "
            f"{100 * table.label_share:g} % of select.budget_bytes; raise select.label_share, or "
            'set select.labels = "hard"'
        )
    return unpack_labels(payload), payload


def _coded(context: Context, table: SelectTable, images: Images) -> bytes | None:
    """The images as a coding keeps them, within the budget if there is one; None for pixels."""
    coded = coded_images(context, table)
    if coded is None:
        return None
    parameters = coded.start(gather(images).cpu())
    return pack_within(coded, parameters, image_budget(context, table))[1]


def asks_committee(table: SelectTable) -> bool:
    """Whether a committee chooses or labels the images."""
    return _needs_committee(table) or table.labels == "votes"


def _needs_committee(table: SelectTable) -> bool:
    reads = selection(table.method).reads
    return reads == "teachers" or (reads == "features" and table.features == "committee")


def _images(context: Context, table: SelectTable) -> Images:
    """Normalised images [k * ipc, c, h, w] in class order."""
    entry = selection(table.method)
    method = resolve(entry)
    if entry.reads == "experts":
        return _by_difficulty(context, table, method(context, table))
    if entry.reads != "features":
        images: Images = method(context, table)
        return images
    real, labels = context.split("train")
    committee = load_committee(context) if _needs_committee(table) else None
    features = _features(real, committee)
    return select_images(
        real, choose_per_class(features, labels, context.classes, table.ipc, method)
    )


def _by_difficulty(context: Context, table: SelectTable, scores: Tensor) -> Images:
    """Real images [k * ipc, c, h, w] by how difficult each of the train split is, [m]."""
    real, labels = context.split("train")
    generator = context.generator(SELECT_STAGE, "difficulty")

    def choose(own: Tensor, count: int) -> Tensor:
        return by_difficulty(own, count, table.difficulty, generator)

    chosen = choose_per_class(scores, labels.cpu(), context.classes, table.ipc, choose)
    return select_images(real, chosen)


def random_images(context: Context, table: SelectTable) -> Images:
    """Real images drawn at random, the control of all other methods."""
    return context.random_real(table.ipc, context.generator(SELECT_STAGE))[0]


def mosaics(context: Context, table: SelectTable) -> Images:
    """Crops that the committee finds realistic, tiled. Source: RDED, Sun et al. 2024."""
    return realistic_mosaics(context, load_committee(context), table, SELECT_STAGE)


def _features(images: Images, committee: Committee | None) -> Features:
    return Pixels(images) if committee is None else committee_features(committee, images)


def select_units(units: Units, table: SelectTable) -> list[Task[Unit]]:
    """Crops to score for mosaics, images for experts; a random draw takes no time."""
    if table.method == "mosaics":
        return mosaic_units(units, table)
    if selection(table.method).reads == "experts":
        return difficulty_units(units, table)
    if table.method == "random":
        return []
    raise NotPricedError(f"{table.method} is not priced")


def _network_keys(recipe: Recipe) -> Any:
    votes, kept = vote_keys(recipe), kept_network_keys(recipe)
    return votes if kept is None else {"votes": votes, "kept": kept}


STAGE = Stage(
    STAGE_ENTRIES[SELECT_STAGE],
    run_select,
    made_images,
    select_units,
    splits=("train",),
    derived=_network_keys,
)
