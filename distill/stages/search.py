"""Images per class, formation and coding within a budget: chosen on the validation split.

Real images stand for those that will be learned or selected: as many as fit under each way to keep
them train a student for a short time, with hard labels, and the way of the best held-out accuracy
is taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.data import RealData
from distill.errors import RecipeError
from distill.recipes.build import build_views
from distill.recipes.schema import Recipe
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.select import SelectTable
from distill.run.context import Context
from distill.run.interrupt import Stop
from distill.run.scratch import scratch_context
from distill.sets.coded_images import (
    CODINGS,
    largest,
    most_per_class,
    usable_factors,
    usable_ways,
)
from distill.sets.narrow import narrow_members
from distill.stages.budget import (
    bytes_besides,
    coded_images,
    fill_budget,
    image_budget,
    rate_within,
)
from synth.formation import decode_images, encode_images
from synth.images import HardLogits, Images, gather
from synth.matching.start import class_labels
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy

# Batches of a short training, and images of a batch.
_BATCHES, SHORT_BATCH = 400, 100

# Who learns from the images where a recipe names no network.
_USUAL_NETWORK = "convnet3:width=32"

Searching = MatchTable | SelectTable


@dataclass(frozen=True)
class Candidate:
    """A way to keep images within the budget: values of [match] or [select].

    Attributes:
        images: spec of a coding.
        ipc: stored images per class.
        factor: each decodes to factor^2 images; 1 for selected ones.
    """

    images: str
    ipc: int
    factor: int


def resolve_budget(
    recipe: Recipe,
    data: RealData,
    earlier: Mapping[str, Any],
    say: Callable[[str], None],
    stop: Stop,
) -> Recipe:
    """The recipe with values for what is chosen within its budget, if its set can be kept at all.

    These are the members' widths for `committee.budget_share`, what `search` of [match] or [select]
    names and, for selected images, as many per class as fit.

    Args:
        recipe: to be resolved.
        data: its real images.
        earlier: the recipe that the run's folder holds, whose values are kept where it asks for the
            same; empty for a new one.
        say: shows a line for each way that is tried.
        stop: asked between short trainings.

    Raises:
        RecipeError: if not one image per class fits into the budget, or no network into its share.
    """
    if recipe.budget_bytes is None and (recipe.match is None or not recipe.match.coded):
        return recipe
    table: Searching = recipe.match or recipe.table("select")
    recipe = narrow_members(recipe, data.channels, data.size, data.classes)
    with tempfile.TemporaryDirectory() as scratch:
        context = scratch_context(Path(scratch), Path(scratch), recipe, None, True, stop)
        context.data = data
        found = _found_before(table, earlier) if table.search else table
        if found is None:
            found = _searched(context, table, say)
        elif isinstance(found, SelectTable):
            found = found.model_copy(update={"ipc": fill_budget(context, found)})
        if isinstance(found, MatchTable):
            _check(context, found)
    return recipe.model_copy(update={recipe.maker_name: found})


def _found_before(table: Searching, earlier: Mapping[str, Any]) -> Searching | None:
    """The table with what an earlier search for the same found."""
    matched = isinstance(table, MatchTable)
    before = earlier.get("match" if matched else "select") or {}
    given = {key for key in table.searchable if key not in table.search}
    if any(before.get(key) != getattr(table, key) for key in {"budget_bytes", "search", *given}):
        return None
    found = (*table.searchable, "batch_size") if matched else table.searchable
    return table.model_copy(update={key: before[key] for key in found})


def _searched(context: Context, table: Searching, say: Callable[[str], None]) -> Searching:
    """The table with the candidate of the best held-out accuracy; the first of equals."""
    # Refuses a budget that labels alone take.
    image_budget(context, table)
    candidates = list(_candidates(context, table))
    if len(candidates) == 1:
        return with_candidate(table, candidates[0], context.classes)
    best: tuple[float, Candidate] | None = None
    for candidate in candidates:
        value = _held_out(context, table, candidate)
        formed = f", factor {candidate.factor}" if isinstance(table, MatchTable) else ""
        say(f"search     {candidate.images}, {candidate.ipc} a class{formed}: {value:.3f} held out")
        if best is None or value > best[0]:
            best = (value, candidate)
    if best is None:
        name = context.recipe.maker_name
        raise RecipeError(
            f"{name}.budget_bytes is {table.budget_bytes:,}, but under no coding that is known "
            "here does an image of each class fit; allow more bytes"
        )
    return with_candidate(table, best[1], context.classes)


def with_candidate(table: Searching, candidate: Candidate, classes: int) -> Searching:
    """The table with a candidate, and a batch size of matching where there are many images.

    A recipe for few images trains on all of them at once.
    """
    found = _with(table, candidate)
    seen = candidate.ipc * candidate.factor**2 * classes
    if not isinstance(found, MatchTable) or found.batch_size is not None or seen <= SHORT_BATCH:
        return found
    return found.model_copy(update={"batch_size": SHORT_BATCH})


def _candidates(context: Context, table: Searching) -> Iterator[Candidate]:
    """As many real images as fit in each way; none where not one per class does."""
    codings = searched_codings(table)
    for spec, factor in usable_ways(context, codings, searched_factors(table, context.data.size)):
        fitting = _fitting(context, table, spec, factor)
        if fitting:
            yield Candidate(spec, fitting, factor)


def _fitting(context: Context, table: Searching, spec: str, factor: int) -> int:
    """Stored images per class that are taken under a coding; 0 where they do not fit."""
    if isinstance(table, SelectTable):
        try:
            return fill_budget(context, table.model_copy(update={"images": spec}))
        except RecipeError:
            return 0

    def size(ipc: int) -> int:
        context.stop.check()
        return _bytes(context, _with(table, Candidate(spec, ipc, factor)))

    budget, most = table.budget_bytes or 0, most_per_class(context, factor)
    if "ipc" in table.search:
        return largest(size, budget, most)
    return table.ipc if table.ipc <= most and size(table.ipc) <= budget else 0


def searched_codings(table: Searching) -> tuple[str, ...]:
    """The codings that are tried."""
    return CODINGS if "images" in table.search else (table.images,)


def searched_factors(table: Searching, size: tuple[int, int]) -> tuple[int, ...]:
    """The formation factors that are tried for images of (h, w) pixels."""
    return usable_factors(size) if "factor" in table.search else (table.formed,)


def short_network(recipe: Recipe) -> str:
    """The spec of the student of short trainings."""
    if recipe.experts is not None:
        return recipe.experts.network
    return recipe.evaluate.students[0] if recipe.evaluate is not None else _USUAL_NETWORK


def short_epochs(count: int) -> int:
    """Epochs of a short training on `count` images."""
    return max(1, _BATCHES * SHORT_BATCH // max(count, SHORT_BATCH))


def _with(table: Searching, candidate: Candidate) -> Searching:
    values: dict[str, Any] = {"images": candidate.images, "ipc": candidate.ipc}
    if isinstance(table, MatchTable):
        values["factor"] = candidate.factor
    return table.model_copy(update=values)


def _bytes(context: Context, table: Searching) -> int:
    """Bytes of everything with random real images in place of those to be learned."""
    besides = bytes_besides(context, table)
    coded = coded_images(context, table)
    if coded is None:
        return besides + _pixel_bytes(context, table)
    return besides + len(coded.pack(coded.start_real(_real(context, table))))


def _real(context: Context, table: Searching) -> Images:
    """Random real images, as many as students of the set see."""
    generator = context.generator("match", "search")
    return context.random_real(table.ipc * table.formed**2, generator)[0]


def _held_out(context: Context, table: Searching, candidate: Candidate) -> float:
    """Validation accuracy of a student that was trained for a short time on real images."""
    table = _with(table, candidate)
    seen = _seen(context, table)
    labels = class_labels(context.classes, table.ipc * table.formed**2)
    soft = HardLogits(labels.to(context.device), context.classes)
    network = context.network(short_network(context.recipe), "match", "search")
    generator = context.generator("match", "search student")
    views = build_views(context.recipe.data.augmentation, one_per_batch=True)
    lr = (context.recipe.evaluate or EvaluateTable.model_construct()).lr
    with context.threads(min(len(seen), SHORT_BATCH), network):
        for _ in train(
            network,
            lambda epoch: shuffled_batches(seen, soft, SHORT_BATCH, views, generator),
            TrainSettings(short_epochs(len(seen)), lr),
        ):
            context.stop.check()
    return accuracy(network, *context.split("validation"))


def _seen(context: Context, table: Searching) -> Tensor:
    """Random real images as students see them once they were kept."""
    real, coded = _real(context, table), coded_images(context, table)
    if coded is None:
        return decode_images(encode_images(gather(real), table.formed), table.formed)
    with torch.no_grad():
        return coded.seen(coded.start_real(real))


def _pixel_bytes(context: Context, table: Searching) -> int:
    height, width = context.data.size
    return 4 * context.classes * table.ipc * context.data.channels * height * width


def _check(context: Context, table: MatchTable) -> None:
    """Raise RecipeError for a budget that the set cannot be kept in, whatever is learned."""
    coded, room = coded_images(context, table), image_budget(context, table)
    if room is None:
        return
    if coded is not None:
        rate_within(coded, room)
    elif _pixel_bytes(context, table) > room:
        raise RecipeError(
            f"match.budget_bytes leaves {room:,} bytes for images, but float32 pixels take "
            f"{_pixel_bytes(context, table):,}; name a coding as match.images, such as "
            "frequency:step=0.3"
        )
