"""`distill export hub PATH hf://OWNER/NAME`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from distill.commands.options import allow_code, as_json, debug, licence
from distill.terminal import echo, echo_json


@click.command("hub")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("address", metavar="hf://OWNER/NAME")
@click.option(
    "--public", is_flag=True, help="Let everybody read a repository that this makes; default: you."
)
@licence
@allow_code
@as_json
@debug
def export_hub(
    path: Path, address: str, public: bool, licence: str, as_json: bool, debug: bool
) -> None:
    """Send PATH (a set.h5, or a run's folder) to a data repository of the Hugging Face hub.

    It gets what `distill export set --format hf` writes, with card and metadata, and the projector
    that lies beside the set. A new repository is private. `distill import hf://OWNER/NAME --from
    hub` reads it back, and `distill.load` in Python. Log in first, with `hf auth login`.

    \b
    Example:
      distill export hub runs/digits hf://me/small-digits --license cc-by-4.0
    """
    from distill.sets.exchange.hub import push_set

    pushed = push_set(path, address, licence, public=public)
    if as_json:
        echo_json(asdict(pushed))
        return
    what = "the set and its projector" if pushed.projector else "the set, without a projector"
    echo(f"{pushed.address}: {what}, {pushed.files:,} files of {pushed.size:,} bytes in all")
