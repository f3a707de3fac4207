"""`distill encode SET`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.options import allow_code, as_json, debug, device, quiet
from distill.terminal import echo, echo_json


@click.command()
@click.argument("set_path", metavar="SET", type=click.Path(path_type=Path))
@click.option("--codec", help="Codec spec, see `distill ls codecs`.")
@click.option(
    "--target-bytes", type=click.IntRange(1), help="Upper limit on the bytes of labels and views."
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1, max_open=True),
    help="Largest accuracy loss on held-out images, a fraction; trains students.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a copy with these labels instead of the full ones; SET stays as it is.",
)
@device
@allow_code
@as_json
@quiet
@debug
def encode(
    set_path: Path,
    out: Path | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **choice: Any,
) -> None:
    """Encode the voted labels of SET (a set.h5, or the folder of a run) in fewer bytes.

    A codec spec joins parts by +: `seed+pruned:ratio=0.9+topk:k=5`. Without --codec, one is chosen
    by --target-bytes or --max-loss.

    \b
    Example:
      distill encode runs/digits --codec seed+topk:k=3 --out small.h5
    """
    from distill.stages.encode import encode_set

    given = {key: value for key, value in choice.items() if value is not None}
    result = encode_set(set_path, given, out, device, quiet)
    if as_json:
        echo_json(result)
        return
    echo(
        f"{result['codec']}: {result['payload']:,} bytes of labels and {result['views']:,} of "
        f"views, in place of {result['full']:,} bytes of labels ({result['ratio']:.1f}x); "
        f"{result['set']}"
    )
