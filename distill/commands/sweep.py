"""`distill sweep SET`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click

from distill.commands.options import (
    address,
    allow_code,
    as_json,
    debug,
    device,
    engine,
    quiet,
    workers,
)
from distill.terminal import echo, echo_json, echo_lines


class Numbers(click.ParamType):
    """Whole numbers from 1 on, comma-separated."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """The numbers in their order."""
        parts = [part.strip() for part in str(value).split(",")]
        for part in parts:
            if not part.isascii() or not part.isdigit() or int(part) < 1:
                self.fail(f"{part!r} is no whole number from 1 on", param, ctx)
        return [int(part) for part in parts]


@click.command()
@click.argument("set_path", metavar="SET", required=False, type=click.Path(path_type=Path))
@click.option(
    "--codecs",
    help="Codec specs, comma-separated, see `distill ls codecs`; with --images also hard, learned "
    "and learned+CODEC, by default the first two.",
)
@click.option(
    "--images",
    is_flag=True,
    help="Compare ways to keep images instead: bytes of everything against accuracy.",
)
@click.option(
    "--codings", help="With --images: ways to keep them, comma-separated, see `distill ls codings`."
)
@click.option(
    "--images-per-class",
    metavar="N,N...",
    type=Numbers(),
    help="With --images: stored images kept of each class, the first ones; default: all.",
)
@click.option("--students", help="Network specs, comma-separated; default: the recipe's.")
@click.option("--seeds", type=click.IntRange(1), help="Students of each kind.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of students.")
@click.option(
    "--whole-epochs",
    type=click.IntRange(1),
    help="With --images: epochs of students on all real images; default: the recipe's.",
)
@click.option(
    "--controls",
    type=click.Choice(["all", "ends"]),
    default="all",
    show_default=True,
    help="Codecs for random real images too: all, or full and hard labels alone (half the time). "
    "With --images: coded real images in as many bytes as all points, or as the least and most.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the table, the plot and the progress; a sweep in it is resumed.",
)
@click.option(
    "--paper",
    is_flag=True,
    help="Instead: bytes of each codec for a distilled ImageNet-1K, from the formulas alone.",
)
@allow_code
@device
@engine
@address
@workers
@as_json
@quiet
@debug
def sweep(
    set_path: Path | None,
    codecs: str | None,
    images: bool,
    codings: str | None,
    images_per_class: list[int] | None,
    controls: Literal["all", "ends"],
    workers: int | Literal["auto"],
    engine: str,
    address: str | None,
    out: Path | None,
    paper: bool,
    device: str | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **changes: Any,
) -> None:
    """Train students on SET under every codec: bytes of labels against accuracy.

    With --images: under every way to keep images, bytes of everything against accuracy, beside
    coded real images in as many bytes.

    In a sweep of codecs, full and hard labels are always there, and random real images under the
    same labels. The columns are bytes of labels and views; the same in a compressed archive; bytes
    to fetch elsewhere; and images passed through a teacher, once to make the labels and in the
    training of each student. The number of workers does not change the numbers.

    \b
    Example:
      distill sweep runs/digits --codecs topk:k=3,lpld:ratio=0.9 --workers 2 --out runs/curve
      distill sweep runs/digits --images --codings rounded:depth=2,frequency:step=0.4 \\
          --images-per-class 1,5,10 --out runs/images
    """
    names = _names(codecs)
    given = {key: value for key, value in changes.items() if value is not None}
    of_images = (codings, images_per_class, given.get("whole_epochs"))
    _check_kind(of_images, images=images, paper=paper)
    if paper:
        _show_paper(names, as_json)
        return
    if set_path is None or out is None or not (names or images):
        wanted = "--images, --codings and --out" if images else "--codecs and --out, or --paper"
        raise click.UsageError(f"give SET, {wanted}")
    from distill.run.engines import build_engine

    chosen = build_engine(engine, workers, address)
    from distill.evaluation.sweep.images.options import ImageSweepOptions
    from distill.evaluation.sweep.images.table import table_lines
    from distill.evaluation.sweep.jobs import SweepOptions
    from distill.evaluation.sweep.run import sweep_set

    options = (
        ImageSweepOptions(_names(codings), names, images_per_class or (), controls)
        if images
        else SweepOptions(names, controls)
    )
    result = sweep_set(set_path, options, given, out, engine=chosen, device=device, quiet=quiet)
    lines = table_lines(result) if images else _lines(result)
    if as_json:
        echo_json(result)
    else:
        echo_lines(lines)


def _check_kind(of_images: tuple[Any, ...], *, images: bool, paper: bool) -> None:
    """Refuse options of another kind of sweep.

    Args:
        of_images: values of the options that only `--images` reads, `--codings` first.
        images: whether it was given.
        paper: whether `--paper` was given.
    """
    if images and (paper or not _names(of_images[0])):
        raise click.UsageError("with --images give SET, --codings and --out, and no --paper")
    if not images and any(value is not None for value in of_images):
        raise click.UsageError("--codings, --images-per-class and --whole-epochs need --images")


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in (listed or "").split(",") if name.strip()]


def _lines(result: dict[str, Any]) -> Iterator[str]:
    from distill.report.result_table import spread_text

    width = max(len(point["codec"]) for point in result["points"])
    students = max(len(point["student"]) for point in result["points"])
    yield (
        f"{'images':<7} {'student':<{students}} {'codec':<{width}} {'bytes':>13} {'shipped':>13} "
        f"{'to fetch':>12} {'ratio':>9} {'passes made':>12} {'asked':>10}  accuracy"
    )
    for point in result["points"]:
        mark = " (dominated)" if point["dominated"] else ""
        yield (
            f"{point['images']:<7} {point['student']:<{students}} {point['codec']:<{width}} "
            f"{point['bytes']:>13,} {point['shipped']:>13,} {point['external']:>12,} "
            f"{point['ratio']:>8.1f}x {point['made']:>12,} {point['asked']:>10,}  "
            f"{spread_text(point).strip()}{mark}"
        )


def _show_paper(names: list[str], as_json: bool) -> None:
    from distill.evaluation.sweep.paper import PAPER_CODECS, paper_table

    rows = paper_table(names or PAPER_CODECS)
    if as_json:
        echo_json(rows)
        return
    width = max(len(row["codec"]) for row in rows)
    echo(f"{'codec':<{width}}  ipc  {'labels, bytes':>15}  {'views, bytes':>15}  ratio")
    for row in rows:
        labels = "by the labels" if row["labels"] is None else f"{row['labels']:,}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}x"
        echo(
            f"{row['codec']:<{width}}  {row['ipc']:>3}  {labels:>15}  {row['views']:>15,}  {ratio}"
        )
