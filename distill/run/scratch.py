"""Contexts outside a run: a set is evaluated, encoded or searched for beside its files."""

from __future__ import annotations

from pathlib import Path

from distill.recipes.build import choose_device
from distill.recipes.compiling import ready_to_compile
from distill.recipes.schema import Recipe
from distill.run.artefacts import COMMITTEE, PROJECTOR, VOTES
from distill.run.context import Context
from distill.run.folder import Run
from distill.run.interrupt import Stop
from distill.run.progress import Progress


def scratch_context(
    scratch: Path, folder: Path, recipe: Recipe, device: str | None, quiet: bool, stop: Stop
) -> Context:
    """A context that reads artefacts from `folder` and writes nothing to it."""
    run = Run(scratch)
    for name in (COMMITTEE, VOTES, PROJECTOR):
        if (folder / name).exists():
            (scratch / name).symlink_to((folder / name).resolve())
    progress = Progress(quiet=quiet)
    # The recipe of a set may have been resolved on a machine with a compiler.
    recipe = ready_to_compile(recipe, progress.say)
    return Context(run, recipe, choose_device(device or recipe.device), progress, stop)
