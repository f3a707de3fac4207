"""`distill export set PATH`."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import NameChoice, allow_code, as_json, debug, licence
from distill.names import FORMATS
from distill.terminal import echo, echo_json


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", required=True, type=NameChoice(list(FORMATS)), help="What to write."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@licence
@allow_code
@as_json
@debug
def export_set(path: Path, form: str, out: Path, licence: str, as_json: bool, debug: bool) -> None:
    """Export PATH (a set.h5, or a run's folder) with a data card, README.md, and croissant.json.

    safetensors, npz and torch hold all of the set; `distill import` reads them back. imagefolder,
    hf and parquet hold 8-bit pictures; ddranking what the benchmark of that name takes; avalanche
    a replay memory for continual learning.

    \b
    Example:
      distill export set runs/digits --format safetensors --out exported --license cc-by-4.0
    """
    from distill.sets.exchange import exchange

    written = exchange.export_set(path, form, out, licence)
    if as_json:
        echo_json({"out": str(out), "files": [exchange.CARD, *written.files]})
    else:
        echo(out)
