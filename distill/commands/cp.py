"""`distill cp RECIPE DEST`."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import as_json, debug
from distill.terminal import echo, echo_json


@click.command()
@click.argument("recipe")
@click.argument("dest", type=click.Path(path_type=Path))
@as_json
@debug
def cp(recipe: str, dest: Path, as_json: bool, debug: bool) -> None:
    """Copy RECIPE to the file DEST, to edit it; an existing file is never replaced.

    \b
    Example:
      distill cp digits mine.toml
    """
    from distill.errors import WorkError
    from distill.recipes.loading import recipe_text
    from distill.store.files import write_text

    name = Path(recipe).name.removesuffix(".toml")
    path = dest / f"{name}.toml" if dest.is_dir() else dest
    text = recipe_text(recipe)
    if path.exists():
        raise WorkError(f"{path} exists; name another file or remove it")
    write_text(path, text)
    if as_json:
        echo_json({"path": str(path)}, indent=None)
    else:
        echo(path)
