"""`distill pack SOURCE`."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import NameChoice, allow_code, as_json, debug, quiet
from distill.terminal import echo, echo_json


@click.command()
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--size", type=click.IntRange(4), help="Of the images, as in recipes.")
@click.option("--channels", type=NameChoice(["1", "3"]), help="Of the images, as in recipes.")
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Fraction of the training images that is held out.",
)
@click.option(
    "--skip-damaged", is_flag=True, help="Leave out pictures that cannot be read; all are named."
)
@allow_code
@as_json
@quiet
@debug
def pack(
    source: str,
    out: Path,
    size: int | None,
    channels: str | None,
    validation: float,
    skip_damaged: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Pack a data source into a folder that is read by batches, for sets larger than memory.

    A pack that lies there is replaced when the new one is whole, which takes the bytes of both.
    Recipes then use it as source = "packed:FOLDER". Needs memory for a few images at a time where
    SOURCE is folder:PATH or hf:NAME, else for the source's bytes.

    \b
    Example:
      distill pack folder:photos --size 64 --out packed/photos
    """
    from distill.data.packing import pack_source
    from distill.errors import InterruptedRunError
    from distill.run.interrupt import listen
    from distill.run.progress import Progress

    try:
        with listen() as stop:
            packed = pack_source(
                source,
                out,
                size=size,
                channels=int(channels) if channels else None,
                validation=validation,
                skip_damaged=skip_damaged,
                task=Progress(quiet=quiet).task,
                check=stop.check,
            )
    except InterruptedRunError:
        raise InterruptedRunError(
            "interrupted; nothing of this pack is kept: run the same command again"
        ) from None
    if as_json:
        echo_json({"out": str(out), **packed}, indent=None)
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in packed["images"].items())
        echo(f"{out}: {counts} images, {packed['bytes']:,} bytes")
    for note in packed["notes"]:
        echo(f"note: {note}", err=True)
