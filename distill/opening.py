"""A run's context, opened again in another process, perhaps on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.build import choose_device
from distill.context import Context
from distill.errors import WorkError
from distill.interrupt import Stop
from distill.progress import Progress
from distill.recipe import check_recipe
from distill.store.run import Run


@dataclass(frozen=True)
class Opening:
    """Plain data from which a process opens a context that reads a run and never writes to it.

    Attributes:
        folder: of the run.
        recipe: the resolved recipe.
        device: "cpu" or "cuda".
        data: digest of the real data.
    """

    folder: Path
    recipe: dict[str, Any]
    device: str
    data: str


def opening_of(context: Context) -> Opening:
    """What another process needs to open this context."""
    folder = context.run.path.resolve()
    return Opening(folder, context.recipe.model_dump(), context.device.type, context.data.digest)


def open_context(opening: Opening) -> Context:
    """The context of an opening, silent and without an end of its own.

    Raises:
        WorkError: if this machine has other data, or no such device.
    """
    recipe = check_recipe(opening.recipe, "run")
    run = Run(opening.folder, {"recipe": {}, "stages": {}})
    context = Context(run, recipe, choose_device(opening.device), Progress(quiet=True), Stop())
    if context.data.digest != opening.data:
        raise WorkError(
            f"a worker found other data in {context.data.source} than the run was begun with; "
            "give all machines the same files"
        )
    return context


def no_advance(note: str = "", count: int = 1) -> None:
    """Progress that nobody sees: the process that asked for the work shows its own."""
