"""Images per class, formation and coding within a budget: chosen on the validation split.

Real images stand for those that will be learned: as many as fit under each way to keep them train
a student for a short time, and the way of the best held-out accuracy is taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from distill.data import RealData
from distill.errors import RecipeError
from distill.recipes.build import build_views
from distill.recipes.schema import Recipe
from distill.recipes.tables.evaluate import EvaluateTable
from distill.recipes.tables.match import MatchTable
from distill.run.context import Context, scratch_context
from distill.run.interrupt import Stop
from distill.stages.match.coded import coded_images, image_budget
from synth.coding import pack_images
from synth.formation import SMALLEST_CELL, encode_images
from synth.images import HardLogits, gather
from synth.matching.start import class_labels
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy

# From about 1 to 3 bits a pixel, and frequencies about as fine.
CODINGS = (
    "rounded:depth=1",
    "rounded:depth=2",
    "frequency:step=0.1",
    "frequency:step=0.2",
    "frequency:step=0.4",
    "frequency:step=0.8",
)

FACTORS = (1, 2)

# Batches of a short training, and images of a batch.
_BATCHES, SHORT_BATCH = 400, 100

# As many images are taken to fit when one more in so many does not.
_TOLERANCE = 50


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
    table = recipe.match
    if table is None or not (table.coded or table.budget_bytes):
        return recipe
    with tempfile.TemporaryDirectory() as scratch:
        context = scratch_context(Path(scratch), Path(scratch), recipe, None, True, stop)
        context.data = data
        if table.search:
            table = _found_before(table, earlier) or _searched(context, table, say)
        _check(context, table)
    return recipe.model_copy(update={"match": table})


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
    best: tuple[float, Candidate] | None = None
    for candidate in _candidates(context, table):
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
    smallest = int(torch.bincount(context.data.train.labels, minlength=context.classes).min())
    codings = CODINGS if "images" in table.search else (table.images,)
    for factor, spec in product(searched_factors(table, context.data.size), codings):

        def size(ipc: int, spec: str = spec, factor: int = factor) -> int | None:
            return _bytes_over(context, table, Candidate(spec, ipc, factor))

        if "ipc" in table.search:
            fitting = _largest(size, smallest // factor**2)
        else:
            fitting = table.ipc if _fits(size(table.ipc)) else 0
        if fitting:
            yield Candidate(spec, fitting, factor)


def searched_factors(table: MatchTable, size: tuple[int, int]) -> tuple[int, ...]:
    """The formation factors that are tried for images of (h, w) pixels."""
    if "factor" not in table.search:
        return (table.factor,)
    return tuple(factor for factor in FACTORS if min(size) // factor >= 2 * SMALLEST_CELL)


def short_epochs(count: int) -> int:
    """Epochs of a short training on `count` images."""
    return max(1, _BATCHES * SHORT_BATCH // max(count, SHORT_BATCH))


def _fits(over: int | None) -> bool:
    return over is not None and over <= 0


def _largest(size: Callable[[int], int | None], most: int) -> int:
    """The largest count of 0 to `most` that fits, to a fiftieth."""
    low, high = 0, 1
    while high <= most and _fits(size(high)):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > max(1, low // _TOLERANCE):
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(size(middle)) else (low, middle)
    return low


def _with(table: MatchTable, candidate: Candidate) -> MatchTable:
    values = {"images": candidate.images, "ipc": candidate.ipc, "factor": candidate.factor}
    return table.model_copy(update=values)


def _bytes_over(context: Context, table: MatchTable, candidate: Candidate) -> int | None:
    """By how many bytes a candidate's real images pass the budget; None where nothing fits."""
    context.stop.check()
    table = _with(table, candidate)
    try:
        coded, room = coded_images(context, table), image_budget(context, table)
    except RecipeError:
        return None
    if room is None:
        return None
    if coded is None:
        return _pixel_bytes(context, table) - room
    parameters = coded.start(_real(context, candidate))
    return len(pack_images(coded.coding, parameters, coded.coder)) - room


def _real(context: Context, candidate: Candidate) -> torch.Tensor:
    """Stored images of random real ones, in the space of the networks."""
    generator = context.generator("match", "search")
    images, _ = context.random_real(candidate.ipc * candidate.factor**2, generator)
    return encode_images(gather(images), candidate.factor)


def _held_out(context: Context, table: MatchTable, candidate: Candidate) -> float:
    """Validation accuracy of a student that was trained for a short time on real images."""
    coded, stored = coded_images(context, _with(table, candidate)), _real(context, candidate)
    if coded is None:
        seen = stored
    else:
        with torch.no_grad():
            seen = coded.seen(coded.start(stored))
    labels = class_labels(context.classes, candidate.ipc * candidate.factor**2)
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


def _pixel_bytes(context: Context, table: MatchTable) -> int:
    height, width = context.data.size
    return 4 * context.classes * table.ipc * context.data.channels * height * width


def _check(context: Context, table: MatchTable) -> None:
    """Raise RecipeError for a budget that the set cannot be kept in, whatever is learned."""
    coded, room = coded_images(context, table), image_budget(context, table)
    if room is None:
        return
    if coded is not None:
        coded.rate(room)
    elif _pixel_bytes(context, table) > room:
        raise RecipeError(
            f"match.budget_bytes leaves {room:,} bytes for images, but float32 pixels take "
            f"{_pixel_bytes(context, table):,}; name a coding as match.images, such as "
            "frequency:step=0.3"
        )
