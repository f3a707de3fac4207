"""`distill merge A B`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.options import allow_code, as_json, debug
from distill.terminal import echo, echo_json


@click.command()
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The new set; A and B stay as they are.",
)
@click.option(
    "--map",
    "given",
    multiple=True,
    metavar="NAME=NAME",
    help="Class of B = its name in the new set, a class of A or a new one; may be given several "
    "times. Other classes are matched by their names.",
)
@click.option(
    "--data",
    default="",
    metavar="SOURCE",
    help="Real images of all classes, for evaluation, such as folder:photos; default: those of A, "
    "if B adds no class.",
)
@allow_code
@as_json
@debug
def merge(
    first: Path,
    second: Path,
    out: Path,
    given: tuple[str, ...],
    data: str,
    as_json: bool,
    debug: bool,
) -> None:
    """Merge two sets (a set.h5, or the folder of a run): the classes and images of both.

    Classes of A come first, and in each class the images of A. Learned labels are widened; voted
    and encoded ones are left out.

    \b
    Example:
      distill merge runs/animals runs/vehicles --data folder:photos --out both.h5
      distill merge a.h5 b.h5 --map kitten=cat --out both.h5
    """
    from distill.sets.merge import merge_files

    show_merged(merge_files(first, second, out, given, data), as_json=as_json)


def show_merged(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what was merged; notes go to standard error."""
    if as_json:
        echo_json(found)
        return
    for note in found["notes"]:
        echo(note, err=True)
    parts = " and ".join(f"{part['images']:,} of {part['file']}" for part in found["merged"])
    echo(
        f"{found['images']:,} images of {found['classes']:,} classes ({parts}), "
        f"{found['bytes']['images']:,} bytes of images; {found['set']}"
    )
