"""`distill import PATH`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.options import NameChoice, allow_code, as_json, debug
from distill.names import importable
from distill.terminal import echo, echo_json


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "layout",
    required=True,
    type=NameChoice(importable()),
    help="Whose layout; npz, safetensors and torch also read what `distill export set` wrote.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The set.h5 to write; of the hub, a folder.",
)
@click.option(
    "--download",
    is_flag=True,
    help="hub: fetch what is not on this machine; nothing else asks the network.",
)
@click.option("--data", default="", help="The real data that the set was made from.")
@click.option("--size", type=click.IntRange(4), help="Of the real data, as in recipes.")
@click.option("--channels", type=NameChoice(["1", "3"]), help="Of the real data, as in recipes.")
@click.option("--network", default="convnet3", show_default=True, help="The set's student.")
@click.option(
    "--space",
    type=NameChoice(["normalised", "pixels", "bytes", "signed", "zca"]),
    help="Of the images: pixels from 0 to 1, bytes to 255, signed from -1; default: the layout's "
    "usual one, if their values agree.",
)
@click.option(
    "--labels",
    type=NameChoice(["classes", "probabilities", "logits", "centred"]),
    help="What the labels' numbers mean (centred: probabilities less 1/k, as in FRePo); default: "
    "what they tell.",
)
@click.option(
    "--statistics",
    default="",
    help="What the images were normalised with: cifar10, ..., or data for those of --data.",
)
@click.option(
    "--class-names",
    default="",
    help="Comma-separated, in the order of the labels; with --data, names of its classes.",
)
@click.option(
    "--augmentation",
    default="",
    help="Views that students of the set see, such as crop_scale_rotate, or none; default: the "
    "usual ones, without flips for digits.",
)
@click.option(
    "--lr",
    "student_lr",
    type=float,
    default=0.01,
    help="Students' learning rate where the files hold none.",
)
@click.option(
    "--soft-labels",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Labels by batches (epoch_0/batch_0.tar ...) of a folder of pictures, as SRe2L and CV-DD "
    "store them.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help="At which students match those.",
)
@click.option("--factor", type=click.IntRange(1), default=1, help="Of IDC's multi-formation.")
@allow_code
@as_json
@debug
def import_set(
    path: Path,
    layout: str,
    out: Path,
    channels: str | None,
    class_names: str,
    space: str | None,
    labels: str | None,
    download: bool,
    as_json: bool,
    debug: bool,
    **given: Any,
) -> None:
    """Import a set that another program made. Only plain arrays are read, never code.

    With --data the set can be evaluated; without it, it can be shown, loaded and exported. A set
    that `distill export hub` has sent comes back as it was, with its projector.

    \b
    Example:
      distill import mtt/logged_files --from mtt --data torchvision:CIFAR10 --out mtt.h5
      distill import hf://me/small-digits --from hub --download --out small
    """
    from distill.errors import RecipeError
    from distill.sets.exchange import exchange
    from distill.sets.exchange.convert import ImportOptions

    names = tuple(name.strip() for name in class_names.split(",") if name.strip())
    options = ImportOptions(
        channels=int(channels) if channels else None,
        class_names=names,
        space=space or "",
        labels=labels or "",
        **given,
    )
    if download and layout != "hub":
        raise RecipeError("--download is for --from hub, as nothing else is fetched; leave it out")
    notes = exchange.import_set(path, layout, out, options, download=download)
    if as_json:
        echo_json({"out": str(out), "notes": notes}, indent=None)
        return
    for note in notes:
        echo(note, err=True)
    echo(out)
