"""`distill import PATH`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from distill.commands.options import Names, as_json, debug
from distill.names import importable


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "layout",
    required=True,
    type=Names(importable()),
    help="Whose layout; npz, safetensors and torch also read what `distill export set` wrote.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The set.h5 to write.")
@click.option("--data", default="", help="The real data that the set was made from.")
@click.option("--size", type=click.IntRange(4), help="Of the real data, as in recipes.")
@click.option("--channels", type=Names(["1", "3"]), help="Of the real data, as in recipes.")
@click.option("--network", default="convnet3", show_default=True, help="The set's student.")
@click.option(
    "--space",
    type=Names(["normalised", "pixels", "zca"]),
    help="Of the images; default: the layout's usual one.",
)
@click.option(
    "--statistics",
    default="",
    help="What the images were normalised with: cifar10, ..., or data for those of --data.",
)
@click.option("--class-names", default="", help="Comma-separated, in the order of the labels.")
@click.option("--lr", type=float, default=0.01, help="Students' rate where the files hold none.")
@click.option("--factor", type=click.IntRange(1), default=1, help="Of IDC's multi-formation.")
@as_json
@debug
def import_set(
    path: Path,
    layout: str,
    out: Path,
    channels: str | None,
    class_names: str,
    space: str | None,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Import a set that another program made. Only plain arrays are read, never code.

    With --data the set can be evaluated; without it, it can be shown, loaded and exported.

    \b
    Example:
      distill import mtt/logged_files --from mtt --data torchvision:CIFAR10 --out mtt.h5
    """
    from distill.sets.exchange.convert import ImportOptions
    from distill.sets.exchange.exchange import import_set as bring

    names = tuple(name.strip() for name in class_names.split(",") if name.strip())
    wishes = ImportOptions(
        channels=int(channels) if channels else None,
        class_names=names,
        space=space or "",
        **options,
    )
    bring(path, layout, out, wishes)
    click.echo(json.dumps({"out": str(out)}) if as_json else out)
