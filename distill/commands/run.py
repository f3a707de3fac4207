"""`distill run` and the stage verbs, which are thin forms of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from distill.commands.options import NameChoice, read_recipe, recipe_options
from distill.names import chosen_loggers, resolve
from distill.recipes.stages import STAGE_ENTRIES, StageEntry
from distill.terminal import columns, echo, echo_json, echo_lines


@click.command()
@recipe_options
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=NameChoice(tuple(STAGE_ENTRIES)),
    help="Run only this stage; may be given several times.",
)
@click.option(
    "--bytes",
    "budget",
    metavar="N",
    type=click.IntRange(1),
    help="Make the best set of at most N bytes of everything that a receiver needs: by the recipe "
    "that RECIPE names as `within_bytes`, or by RECIPE itself. Where that does not say how its "
    "images are kept, a short search on validation images does.",
)
def run(stages: tuple[str, ...], **options: Any) -> None:
    """Run RECIPE (a name from `distill ls recipes`, or a TOML file) into the folder --out.

    Stages whose inputs have not changed are skipped; an interrupted run resumes. A run that was
    evaluated ends with the table of `distill evaluate`.

    \b
    Example:
      distill run digits --out runs/digits --set match.ipc=10
      distill run digits --out runs/2kb --bytes 2000
    """
    _run(stages, **options)


def _verb(stage: StageEntry) -> click.Command:
    def callback(**options: Any) -> None:
        _run(stage.verb, verb=True, **options)

    recipe = stage.example
    lines = (f"distill {name} {recipe} --out runs/{recipe}" for name in (*stage.after, stage.name))
    callback.__doc__ = (
        f"{stage.summary}\n\nThe same as `distill run RECIPE --out RUN "
        f"{' '.join('--stage ' + name for name in stage.verb)}`.\n\n\b\nExample:\n  "
        + "\n  ".join(lines)
    )
    decorated: Callable[..., Any] = recipe_options(callback)
    return click.command(stage.name)(decorated)


VERBS = {stage.name: _verb(stage) for stage in STAGE_ENTRIES.values() if stage.verb}


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
    log: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    debug: bool,
    verb: bool = False,
    budget: int | None = None,
) -> None:
    resolved = read_recipe(recipe, overrides, seed=seed, budget=budget, quiet=quiet)
    shown = chosen_loggers(log)
    # Not above: they import torch, and a wrong recipe should not take seconds to be told.
    from distill.run.engines import build_engine

    chosen = build_engine(engine, workers, address)
    from distill.run.progress import Progress
    from distill.stages.run_recipe import fetch_data, run_outcome, run_recipe

    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    if verb:
        # Selection by pixels needs no teachers; what does is refused with the recipe.
        *before, asked = stages
        stages = (*(name for name in before if getattr(resolved, name) is not None), asked)
    if download:
        fetch_data(resolved)
    progress = Progress(quiet=quiet, loggers={one.name: resolve(one)() for one in shown})
    report = run_recipe(resolved, out, stages, engine=chosen, reuse=reuse, progress=progress)
    if as_json:
        echo_json(run_outcome(out))
    elif report is not None:
        from distill.report.result_table import result_lines

        echo_lines(result_lines(run_outcome(out)["summary"], columns()))
        echo(f"report: {report}", err=True)
