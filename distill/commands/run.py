"""`distill run` and the stage verbs, which are thin forms of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from distill.commands.options import Names, recipe_options

_STAGES = (
    "experts",
    "match",
    "committee",
    "recover",
    "select",
    "refine",
    "relabel",
    "project",
    "encode",
    "evaluate",
)


@click.command()
@recipe_options
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=Names(_STAGES),
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


def _verb(
    name: str, summary: str, stages: tuple[str, ...], recipe: str = "digits"
) -> click.Command:
    def callback(**options: Any) -> None:
        _run(stages, verb=True, **options)

    callback.__doc__ = (
        f"{summary}\n\n    The same as `distill run RECIPE --out RUN "
        f"{' '.join('--stage ' + stage for stage in stages)}`.\n\n    \b\n    Example:\n"
        f"      distill {name} {recipe} --out runs/{recipe}\n    "
    )
    decorated: Callable[..., Any] = recipe_options(callback)
    return click.command(name)(decorated)


experts = _verb("experts", "Train experts and record their trajectories.", ("experts",))

match = _verb("match", "Match the experts' trajectories.", ("match",))

recover = _verb(
    "recover",
    "Optimise images until the committee recognises them.",
    ("committee", "recover"),
    recipe="digits-recover",
)

select = _verb(
    "select",
    "Select real images, or mosaics of them.",
    ("committee", "select"),
    recipe="digits-rded",
)

refine = _verb("refine", "Refine the images in a tower's space.", ("refine",))

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
    address: str | None,
    workers: int | Literal["auto"],
    download: bool,
    reuse: tuple[Path, ...],
    quiet: bool,
    as_json: bool,
    debug: bool,
    verb: bool = False,
) -> None:
    from distill.run.engines import build_engine

    chosen = build_engine(engine, workers, address)
    from distill.recipes.loading import load_recipe
    from distill.stages.run_recipe import fetch_data, run_outcome, run_recipe

    resolved = load_recipe(recipe, list(overrides), seed)
    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    if verb and resolved.committee is None:
        # Selection by pixels needs no teachers; what does is refused with the recipe.
        stages = tuple(stage for stage in stages if stage != "committee")
    if download:
        fetch_data(resolved)
    report = run_recipe(resolved, out, stages, quiet=quiet, engine=chosen, reuse=reuse)
    if as_json:
        click.echo(json.dumps(run_outcome(out), indent=2))
    elif report is not None:
        click.echo(f"report: {report}", err=True)
