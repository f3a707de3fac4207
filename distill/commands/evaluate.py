"""`distill evaluate SET`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from distill.commands.options import (
    NameChoice,
    address,
    allow_code,
    as_json,
    debug,
    device,
    engine,
    place,
    quiet,
    workers,
)
from distill.names import PROTOCOLS
from distill.terminal import columns, echo_json, echo_lines


@click.command()
@click.argument("set_path", metavar="SET", type=click.Path(path_type=Path))
@click.option("--students", help="Network specs, comma-separated; default: the recipe's.")
@click.option("--seeds", type=click.IntRange(1), help="Students of each kind.")
@click.option("--labels", help="Label sources: hard,learned,votes,projector, or codecs.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of students on the set.")
@click.option(
    "--whole-epochs",
    type=click.IntRange(0),
    help="Epochs of the whole-set control; 0 leaves it out.",
)
@click.option(
    "--protocol",
    type=NameChoice(list(PROTOCOLS)),
    help="How students are trained: trajectory (SGD at the learned lr), kd (AdamW, soft labels, "
    "views), hard (SGD with momentum), or a paper's: dc, dsa, rded, cda, rd3, with all that it "
    "prescribes; auto takes that of each label source. See `distill ls protocols`.",
)
@click.option(
    "--augmentation",
    metavar="FAMILIES",
    help="Views of images with hard or learned labels, such as crop_scale_rotate, or none; "
    "default: those that the set was made under.",
)
@click.option(
    "--lr-factors",
    metavar="F,F...",
    help="Learning rates to try on the validation split, as multiples of the protocol's.",
)
@click.option(
    "--optimizers",
    metavar="NAME,NAME...",
    help="Optimisers to try there: sgd, adam, adamw, muon; or trajectory, SGD at the set's rate.",
)
@click.option("--temperatures", metavar="T,T...", help="Temperatures of soft labels to try there.")
@click.option(
    "--hard-weights", metavar="W,W...", help="Weights of the class in soft labels to try there."
)
@click.option(
    "--anew", is_flag=True, help="Choose all that again, whatever SET states that was chosen."
)
@click.option(
    "--equal-bytes",
    is_flag=True,
    default=None,
    help="Also train controls in as many bytes as the set: coded real images, a small network.",
)
@click.option(
    "--scores",
    is_flag=True,
    default=None,
    help="Also train without augmentation, and give DD-Ranking's two scores.",
)
@click.option(
    "--steps",
    metavar="N",
    type=click.IntRange(2),
    help="Let classes arrive in N groups; after each, train and test on those seen so far.",
)
@click.option("--record", is_flag=True, help="Store the results in SET.")
@allow_code
@place
@device
@engine
@address
@workers
@as_json
@quiet
@debug
def evaluate(
    set_path: Path,
    place: str | None,
    device: str | None,
    engine: str,
    address: str | None,
    workers: int | Literal["auto"],
    record: bool,
    anew: bool,
    steps: int | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **changes: Any,
) -> None:
    """Train fresh students on SET (a set.h5, or the folder of a run) and on its controls.

    \b
    Example:
      distill evaluate runs/digits/set.h5 --students convnet3,resnet18 --seeds 3 --json
      distill evaluate runs/digits/set.h5 --steps 5
    """
    from distill.run.engines import build_engine

    chosen = build_engine(engine, workers, address)
    from distill.evaluation.whole import evaluate_set

    given = {key: value for key, value in changes.items() if value is not None}
    if given.get("whole_epochs") == 0:
        given |= {"whole_seeds": 0}
        del given["whole_epochs"]
    result = evaluate_set(
        set_path, given, device, quiet, chosen, record=record, place=place, anew=anew, steps=steps
    )
    if as_json:
        echo_json(result)
        return
    from distill.report.result_table import result_lines
    from distill.report.step_table import step_lines

    lines = result_lines if steps is None else step_lines
    echo_lines(lines(result, columns()))
