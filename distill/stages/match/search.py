"""Images per class, formation and coding within a budget: chosen on the validation split.

Real images stand for those that will be learned: as many as fit under each way to keep them train
a student for a short time, and the way of the best held-out accuracy is taken.
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


@dataclass(frozen=True)
class Candidate:
    """A way to keep images within the budget: values of [match]."""

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
    """The recipe with values for the keys that match.search names, if its set can be kept at all.

    For selected images within a budget: with as many per class as fit.

    Args:
        recipe: to be resolved.
        data: its real images.
        earlier: the recipe that the run's folder holds, whose values are kept where it asks for the
            same; empty for a new one.
        say: shows a line for each way that is tried.
        stop: asked between short trainings.

    Raises:
        RecipeError: if not one image per class fits into the budget.
    """
    table, chosen = recipe.match, recipe.select
    if recipe.budget_bytes is None and (table is None or not table.coded):
        return recipe
    with tempfile.TemporaryDirectory() as scratch:
        context = scratch_context(Path(scratch), Path(scratch), recipe, None, True, stop)
        context.data = data
        if chosen is not None:
            chosen = chosen.model_copy(update={"ipc": fill_budget(context, chosen)})
        if table is not None:
            if table.search:
                table = _found_before(table, earlier) or _searched(context, table, say)
            _check(context, table)
    return recipe.model_copy(update={"match": table, "select": chosen})


def _found_before(table: MatchTable, earlier: Mapping[str, Any]) -> MatchTable | None:
    """The table with what an earlier search for the same found."""
    before = earlier.get("match") or {}
    given = {key for key in ("images", "ipc", "factor") if key not in table.search}
    if any(before.get(key) != getattr(table, key) for key in {"budget_bytes", "search", *given}):
        return None
    kept = {key: before[key] for key in ("images", "ipc", "factor", "batch_size")}
    return table.model_copy(update=kept)


def _searched(context: Context, table: MatchTable, say: Callable[[str], None]) -> MatchTable:
    """The table with the candidate of the best held-out accuracy; the first of equals."""
    # Refuses a budget that labels alone take.
    image_budget(context, table)
    candidates = list(_candidates(context, table))
    if len(candidates) == 1:
        return with_candidate(table, candidates[0], context.classes)
    best: tuple[float, Candidate] | None = None
    for candidate in candidates:
        value = _held_out(context, table, candidate)
        say(
            f"search     {candidate.images}, {candidate.ipc} a class, factor {candidate.factor}: "
            f"{value:.3f} held out"
        )
        if best is None or value > best[0]:
            best = (value, candidate)
    if best is None:
        raise RecipeError(
            f"match.budget_bytes is {table.budget_bytes:,}, but under no coding that is known here "
            "does an image of each class fit; allow more bytes"
        )
    return with_candidate(table, best[1], context.classes)


def with_candidate(table: MatchTable, candidate: Candidate, classes: int) -> MatchTable:
    """The table with a candidate, and a batch size where there are many images.

    A recipe for few images trains on all of them at once.
    """
    seen = candidate.ipc * candidate.factor**2 * classes
    batch = {"batch_size": SHORT_BATCH} if table.batch_size is None and seen > SHORT_BATCH else {}
    return _with(table, candidate).model_copy(update=batch)


def _candidates(context: Context, table: MatchTable) -> Iterator[Candidate]:
    """As many real images as fit in each way; none where not one per class does."""
    codings = CODINGS if "images" in table.search else (table.images,)
    budget = table.budget_bytes or 0
    for spec, factor in usable_ways(context, codings, searched_factors(table, context.data.size)):

        def size(ipc: int, spec: str = spec, factor: int = factor) -> int:
            context.stop.check()
            return _bytes(context, _with(table, Candidate(spec, ipc, factor)))

        most = most_per_class(context, factor)
        if "ipc" in table.search:
            fitting = largest(size, budget, most)
        else:
            fitting = table.ipc if table.ipc <= most and size(table.ipc) <= budget else 0
        if fitting:
            yield Candidate(spec, fitting, factor)


def searched_factors(table: MatchTable, size: tuple[int, int]) -> tuple[int, ...]:
    """The formation factors that are tried for images of (h, w) pixels."""
    return usable_factors(size) if "factor" in table.search else (table.factor,)


def short_epochs(count: int) -> int:
    """Epochs of a short training on `count` images."""
    return max(1, _BATCHES * SHORT_BATCH // max(count, SHORT_BATCH))


def _with(table: MatchTable, candidate: Candidate) -> MatchTable:
    values = {"images": candidate.images, "ipc": candidate.ipc, "factor": candidate.factor}
    return table.model_copy(update=values)


def _bytes(context: Context, table: MatchTable) -> int:
    """Bytes of everything with random real images in place of those to be learned."""
    besides = bytes_besides(context, table)
    coded = coded_images(context, table)
    if coded is None:
        return besides + _pixel_bytes(context, table)
    return besides + len(coded.pack(coded.start_real(_real(context, table))))


def _real(context: Context, table: MatchTable) -> Images:
    """Random real images, as many as students of the set see."""
    generator = context.generator("match", "search")
    return context.random_real(table.ipc * table.factor**2, generator)[0]


def _held_out(context: Context, table: MatchTable, candidate: Candidate) -> float:
    """Validation accuracy of a student that was trained for a short time on real images."""
    table = _with(table, candidate)
    seen = _seen(context, table)
    labels = class_labels(context.classes, table.ipc * table.factor**2)
    soft = HardLogits(labels.to(context.device), context.classes)
    spec = context.recipe.matching()[0].network
    network = context.network(spec, "match", "search")
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


def _seen(context: Context, table: MatchTable) -> Tensor:
    """Random real images as students see them once they were kept."""
    real, coded = _real(context, table), coded_images(context, table)
    if coded is None:
        return decode_images(encode_images(gather(real), table.factor), table.factor)
    with torch.no_grad():
        return coded.seen(coded.start_real(real))


def _pixel_bytes(context: Context, table: MatchTable) -> int:
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
