"""`distill run` and the stage verbs, which are thin forms of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from distill.commands.options import recipe_options

_STAGES = ("experts", "match", "committee", "relabel", "project", "evaluate")


@click.command()
@recipe_options
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(_STAGES),
    help="Run only this stage; may be given several times.",
)
def run(stages: tuple[str, ...], **options: Any) -> None:
    """Run RECIPE (a name from `distill ls recipes`, or a TOML file) into the folder --out.

    Stages whose inputs have not changed are skipped; an interrupted run goes on.

    \b
    Example:
      distill run digits --out runs/digits --set match.ipc=10
    """
    _run(stages, **options)


def _verb(name: str, summary: str, stages: tuple[str, ...]) -> click.Command:
    def callback(**options: Any) -> None:
        _run(stages, **options)

    callback.__doc__ = (
        f"{summary}\n\n    The same as `distill run RECIPE --out RUN "
        f"{' '.join('--stage ' + stage for stage in stages)}`.\n\n    \b\n    Example:\n"
        f"      distill {name} digits --out runs/digits\n    "
    )
    decorated: Callable[..., Any] = recipe_options(callback)
    return click.command(name)(decorated)


experts = _verb("experts", "Train experts and record their trajectories.", ("experts",))
match = _verb("match", "Match the experts' trajectories.", ("match",))
relabel = _verb("relabel", "Vote a soft label for every view.", ("committee", "relabel"))
project = _verb("project", "Fit the projector.", ("committee", "project"))


def _run(
    stages: tuple[str, ...],
    *,
    recipe: str,
    out: Path,
    overrides: tuple[str, ...],
    seed: int | None,
    device: str | None,
    engine: str,
    workers: int | None,
    quiet: bool,
    debug: bool,
) -> None:
    from distill.application import run_recipe
    from distill.recipe import load_recipe

    resolved = load_recipe(recipe, list(overrides), seed)
    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    report = run_recipe(resolved, out, stages, quiet=quiet, workers=workers)
    if report is not None:
        click.echo(f"report: {report}", err=True)
