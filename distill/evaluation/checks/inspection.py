"""A health check of real data, for the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.data import DataError, SourceError
from distill.data.given import named_source
from distill.data.health import Health, check_health
from distill.data.loading import load_splits
from distill.errors import RecipeError, WorkError
from distill.evaluation.checks.suspects import Suspects, find_suspects, recipe_of
from distill.recipes.build import data_options
from distill.recipes.tables.data import DataTable
from distill.run.progress import Progress

# Sources of pictures of any size, and the size that these are brought to where none is named.
_PICTURES, _SIDE = ("folder", "hf"), 64


@dataclass(frozen=True)
class Wishes:
    """What is to be inspected, and how.

    Attributes:
        size: side in pixels that images are brought to; None for 64 where pictures are files, else
            as they are.
        channels: 1 or 3; None for the images' own.
        similarity: least correlation of near copies; 1 for exact ones alone.
        experts: folder of a run whose networks are asked for label errors.
    """

    size: int | None = None
    channels: int | None = None
    similarity: float = 0.995
    experts: Path | None = None


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found out about data.

    Attributes:
        health: of the images.
        suspects: likely label errors; None where no networks were asked.
    """

    health: Health
    suspects: Suspects | None = None

    def findings(self) -> list[str]:
        """What is wrong, in sentences."""
        found = self.health.findings()
        if self.suspects is not None and self.suspects.found:
            by_part = [
                f"{count} {part.name}"
                for part in self.health.parts
                if (count := sum(one.part == part.name for one in self.suspects.found))
            ]
            found.append(
                f"labels that are likely wrong, by {self.suspects.networks}: "
                f"{', '.join(by_part)}; look at them (those learned by heart are missed)"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        found = {**self.health.to_dict(), "findings": self.findings()}
        if self.suspects is None:
            return found
        names = self.health.class_names
        rows = [
            {
                **asdict(one),
                "image": self.health.name(one.part, one.number),
                "label": names[one.label],
                "suggested": names[one.suggested],
            }
            for one in self.suspects.found
        ]
        return {**found, "label_errors": {"networks": self.suspects.networks, "images": rows}}


def inspect_data(
    data: str,
    wishes: Wishes,
    device: str | None = None,
    *,
    quiet: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Inspection:
    """Look at all images of a data source, as a run would cut them.

    Args:
        data: a source, a folder of classes, a pack, or an npz file.
        wishes: what to look for, and at which size.
        device: where networks compute; None for their recipe's.
        quiet: show no progress.
        check: called between batches; what it raises ends the work.

    Raises:
        RecipeError: for what is no source, or options that do not fit.
        WorkError: if the data cannot be read, or the networks were trained on others.
    """
    progress = Progress(quiet=quiet)
    try:
        source = named_source(data)
    except SourceError as error:
        raise RecipeError(str(error)) from None
    if wishes.experts is None:
        return Inspection(_health(_table(source, wishes), wishes, progress, check))
    if wishes.size is not None or wishes.channels is not None:
        raise RecipeError("--size and --channels are the run's own with --experts; leave them out")
    recipe = recipe_of(wishes.experts, source)
    health = _health(recipe.data, wishes, progress, check)
    return Inspection(health, find_suspects(wishes.experts, recipe, device, quiet=quiet))


def _table(source: str, wishes: Wishes) -> DataTable:
    """The [data] that is looked at: damaged pictures are counted rather than refused."""
    pictures = source.partition(":")[0] in _PICTURES
    size = wishes.size or (_SIDE if pictures else None)
    given = {"source": source, "size": size, "channels": wishes.channels, "skip_damaged": True}
    return DataTable.model_validate(given)


def _health(
    table: DataTable, wishes: Wishes, progress: Progress, check: Callable[[], None]
) -> Health:
    try:
        splits = load_splits(table.source, **data_options(table))
        with progress.task("inspect", sum(map(len, splits.three))) as advance:

            def seen(count: int) -> None:
                advance(count=count)
                check()

            return check_health(splits, table.source, wishes.similarity, seen)
    except SourceError as error:
        raise RecipeError(f"data {table.source}: {error}") from None
    except (DataError, OSError) as error:
        raise WorkError(f"data {table.source}: {error}") from None
