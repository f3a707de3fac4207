"""`distill compress SET`."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import allow_code, as_json, debug
from distill.terminal import echo, echo_json


@click.command()
@click.argument("set_path", metavar="SET", type=click.Path(path_type=Path))
@click.option(
    "--bytes",
    "budget",
    metavar="N",
    type=click.IntRange(1),
    required=True,
    help="Most bytes of everything that a receiver needs.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The new set; SET stays as it is.",
)
@click.option(
    "--steps",
    type=click.IntRange(0),
    default=0,
    help="Gradient steps that bring the pixels nearer in the same bytes; 30 are enough.",
)
@allow_code
@as_json
@debug
def compress(
    set_path: Path, budget: int, out: Path, steps: int, as_json: bool, debug: bool
) -> None:
    """Keep SET (a set.h5, or the folder of a run) in at most N bytes of images and labels.

    Of the ways to keep images, the one is taken that comes nearest to them within the budget. Hard
    labels are kept, and learned ones where they fit.

    \b
    Example:
      distill compress runs/digits --bytes 2000 --out small.h5
    """
    from distill.sets.compress import compress_file

    found = compress_file(set_path, budget, out, steps)
    if as_json:
        echo_json(found)
        return
    labels = ", learned labels" if found["learned"] else ""
    echo(
        f"{found['coding']}: {found['total']:,} of {budget:,} bytes, {found['bytes']['images']:,} "
        f"of images{labels}; mean squared error of pixels {found['error']:.2g}; {found['set']}"
    )
