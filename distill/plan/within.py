"""Which settings of a recipe fit into a given time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from distill.recipes.schema import Recipe
from distill.recipes.stages import MAKERS

# Keys that say how long something is done, each of which may be 1.
LENGTHS = (
    "experts.count",
    "match.iterations",
    "recover.iterations",
    "committee.epochs",
    "relabel.epochs",
    "projector.steps",
    "refine.steps",
    "evaluate.seeds",
    "evaluate.epochs",
    "evaluate.soft_epochs",
    "evaluate.whole_epochs",
)

# How much is made and tested.
AMOUNTS = (*(f"{maker}.ipc" for maker in MAKERS), "evaluate.students")

# The shares of all lengths that are tried together.
_SHARES = 64

# Seconds of a recipe, or None where they are not known.
Price = Callable[[Recipe], float | None]


@dataclass(frozen=True)
class Within:
    """What fits into a time.

    Attributes:
        limit: in seconds.
        seconds: of the recipe as it is; None where they are not known, and then nothing else is.
        alone: for each key, the largest value, up to the recipe's, at which all fits while the
            others stay; keys that do not suffice alone are not there.
        together: all lengths in proportion, at the largest share that fits; empty where the recipe
            fits, and where none does.
        together_seconds: of these.
    """

    limit: float
    seconds: float | None
    alone: dict[str, int]
    together: dict[str, int]
    together_seconds: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the recipe fits as it is."""
        return self.seconds is not None and self.seconds <= self.limit


def find_settings(recipe: Recipe, limit: float, price: Price) -> Within:
    """The settings of a recipe that fit into `limit` seconds, from those that it has downwards.

    Args:
        recipe: as it is resolved.
        limit: in seconds.
        price: seconds of a recipe; rises with each of its lengths and amounts.
    """
    whole = price(recipe)
    if whole is None or whole <= limit:
        return Within(limit, whole, {}, {})

    def fits(values: dict[str, int]) -> bool:
        seconds = price(with_values(recipe, values))
        return seconds is not None and seconds <= limit

    def fits_alone(key: str, value: int) -> bool:
        return fits({key: value})

    lengths = dict(_values(recipe, LENGTHS))
    alone = {}
    for key, value in (*lengths.items(), *_values(recipe, AMOUNTS)):
        most = _largest(value - 1, partial(fits_alone, key))
        if most:
            alone[key] = most

    def shared(share: int) -> dict[str, int]:
        return {key: max(1, value * share // _SHARES) for key, value in lengths.items()}

    share = _largest(_SHARES - 1, lambda tried: fits(shared(tried)))
    if not share:
        return Within(limit, whole, alone, {})
    together = {key: value for key, value in shared(share).items() if value != lengths[key]}
    return Within(limit, whole, alone, together, price(with_values(recipe, together)))


def _values(recipe: Recipe, keys: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """The keys whose tables the recipe has, and their values above 1; of lists, the lengths."""
    for key in keys:
        table, _, name = key.partition(".")
        value = getattr(getattr(recipe, table), name, None)
        count = len(value) if isinstance(value, list) else value
        if isinstance(count, int) and count > 1:
            yield key, count


def with_values(recipe: Recipe, values: dict[str, int]) -> Recipe:
    """The recipe with other values; of a list, the first so many.

    Args:
        recipe: to be changed.
        values: "table.key" -> value.
    """
    for key, value in values.items():
        name, _, field = key.partition(".")
        table = getattr(recipe, name)
        old = getattr(table, field)
        changed: Any = old[:value] if isinstance(old, list) else value
        recipe = recipe.model_copy(
            update={name: table.model_copy(update={field: changed})},
        )
    return recipe


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to `most` that fits, where smaller ones do too; 0 for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def as_settings(recipe: Recipe, values: dict[str, int]) -> list[str]:
    """The values as `--set` takes them.

    Args:
        recipe: that they belong to.
        values: "table.key" -> value, see `with_values`.
    """
    changed = with_values(recipe, values)
    written = []
    for key in values:
        table, _, name = key.partition(".")
        value = getattr(getattr(changed, table), name)
        written.append(f"{key}={','.join(value) if isinstance(value, list) else value}")
    return written
