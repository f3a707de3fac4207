"""`distill order SET`."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import allow_code, as_json, debug
from distill.terminal import echo, echo_json


@click.command()
@click.argument("set_path", metavar="SET", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The new set; SET stays as it is.",
)
@click.option(
    "--first",
    metavar="K",
    type=click.IntRange(1),
    help="Keep only the first K stored images of each class; default: all.",
)
@allow_code
@as_json
@debug
def order(set_path: Path, out: Path, first: int | None, as_json: bool, debug: bool) -> None:
    """Order the images of each class of SET (a set.h5, or the folder of a run) by herding.

    Whatever first images of each class are taken of the new set, their mean is near to that of
    all. Voted and encoded labels are left out.

    \b
    Example:
      distill order runs/digits --out nested.h5
      distill order nested.h5 --first 1 --out one.h5
    """
    from distill.sets.order import order_file

    found = order_file(set_path, out, first)
    if as_json:
        echo_json(found)
        return
    for note in found["notes"]:
        echo(note, err=True)
    echo(
        f"{found['images']:,} images, {found['bytes']['images']:,} bytes of images; {found['set']}"
    )
