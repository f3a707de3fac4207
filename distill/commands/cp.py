"""`distill cp RECIPE DEST`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from distill.commands.options import as_json, debug, recipe_argument
from distill.terminal import echo, echo_json, echo_lines


@click.command()
@recipe_argument
@click.argument("dest", type=click.Path(path_type=Path))
@as_json
@debug
def cp(recipe: str, dest: Path, as_json: bool, debug: bool) -> None:
    """Copy RECIPE to the file DEST, to edit it; an existing file is never replaced.

    DEST may be a folder, or -, which prints the recipe. What RECIPE names as `within_bytes` is left
    out: a copy is for other images, which that one does not read.

    \b
    Example:
      distill cp digits mine.toml
    """
    from distill.errors import RecipeError, WorkError
    from distill.recipes.loading import recipe_text
    from distill.store.files import write_text

    name = Path(recipe).name.removesuffix(".toml")
    path = dest / f"{name}.toml" if dest.is_dir() else dest
    text = re.sub(r"^within_bytes = .*\n", "", recipe_text(recipe), flags=re.MULTILINE)
    if str(dest) == "-":
        if as_json:
            raise RecipeError("--json says where the copy lies, and - makes none; leave one out")
        echo_lines(text.splitlines())
        return
    if not path.parent.is_dir():
        raise WorkError(f"the folder {path.parent} is not there; make it first, or name another")
    if path.exists():
        raise WorkError(f"{path} exists; name another file or remove it")
    write_text(path, text)
    if as_json:
        echo_json({"path": str(path)}, indent=None)
    else:
        echo(path)
