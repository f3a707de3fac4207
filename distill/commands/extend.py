"""`distill extend SET`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Literal

import click

from distill.commands.merge import show_merged
from distill.commands.options import allow_code, as_json, debug, device, quiet, workers
from distill.terminal import echo


@click.command()
@click.argument("set_path", metavar="SET", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="SOURCE", help="The new real images.")
@click.option(
    "--recipe", "name", required=True, help="How images are made of them; its data are replaced."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the grown set, set.h5; SET stays as it is.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Override a key of the recipe; may be given several times.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Override the seed.")
@click.option(
    "--map",
    "given",
    multiple=True,
    metavar="NAME=NAME",
    help="Class of the data = its name in the grown set; others are matched by their names.",
)
@click.option(
    "--labels",
    is_flag=True,
    help="Also label the grown set by the recipe's [committee]: votes as [relabel] says, and a "
    "[projector], of all classes. The data must have them all.",
)
@device
@workers
@quiet
@allow_code
@as_json
@debug
def extend(
    set_path: Path,
    data: str,
    name: str,
    out: Path,
    overrides: tuple[str, ...],
    seed: int | None,
    given: tuple[str, ...],
    labels: bool,
    device: str | None,
    workers: int | Literal["auto"],
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Extend SET (a set.h5, or the folder of a run) by classes or images of other real data.

    The images of SET stay as they are. Of the data, images are made of the classes that SET
    lacks, or of all where it lacks none. If the data hold all classes, the set can be evaluated.
    Votes and projectors of SET do not know the new ones, and stay behind; --labels makes others.

    \b
    Example:
      distill extend runs/animals --data folder:all --recipe digits-herding --out runs/grown
    """
    from distill.recipes.early import check_specs
    from distill.recipes.loading import load_recipe

    recipe = load_recipe(name, list(overrides), seed)
    check_specs(recipe)
    # Not above: they import torch.
    from distill.run.engines import build_engine

    engine = build_engine("local", workers, None)
    from distill.sets.merge import parse_map
    from distill.stages.extend import Growth, extend_set

    if device is not None:
        recipe = recipe.model_copy(update={"device": device})
    growth = Growth(data, recipe, parse_map(given), labels)
    show_merged(extend_set(set_path, growth, out, quiet=quiet, engine=engine), as_json=as_json)
    if not as_json:
        echo(f"Next: distill evaluate {quote(str(out))} --record")
