"""`distill sweep SET`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click

from distill.commands.options import address, as_json, debug, device, engine, quiet, workers


@click.command()
@click.argument("set_path", metavar="SET", required=False, type=click.Path(path_type=Path))
@click.option("--codecs", help="Codec specs, comma-separated, see `distill ls codecs`.")
@click.option("--students", help="Network specs, comma-separated; default: the recipe's.")
@click.option("--seeds", type=click.IntRange(1), help="Students of each kind.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of students.")
@click.option(
    "--controls",
    type=click.Choice(["all", "ends"]),
    default="all",
    show_default=True,
    help="Codecs for random real images too: all, or full and hard labels alone (half the time).",
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

    Full and hard labels, and random real images under the same labels, are always part of it. The
    number of workers does not change the numbers. The columns are bytes of labels and views; the
    same in a compressed archive; bytes to fetch elsewhere; and images passed through a teacher,
    once to make the labels and in the training of each student.

    \b
    Example:
      distill sweep runs/digits --codecs topk:k=3,lpld:ratio=0.9 --workers 2 --out runs/curve
    """
    names = [name.strip() for name in (codecs or "").split(",") if name.strip()]
    if paper:
        _show_paper(names, as_json)
        return
    if set_path is None or out is None or not names:
        raise click.UsageError("give SET, --codecs and --out, or --paper")
    from distill.run.engines import build_engine

    chosen = build_engine(engine, workers, address)
    from distill.evaluation.sweep.jobs import SweepOptions
    from distill.evaluation.sweep.run import sweep_set

    given = {key: value for key, value in changes.items() if value is not None}
    options = SweepOptions(names, controls)
    result = sweep_set(set_path, options, given, out, engine=chosen, device=device, quiet=quiet)
    click.echo(json.dumps(result, indent=2) if as_json else "\n".join(_lines(result)))


def _lines(result: dict[str, Any]) -> Iterator[str]:
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
            f"{100 * point['mean']:.2f} ± {100 * point['std']:.2f} %{mark}"
        )


def _show_paper(names: list[str], as_json: bool) -> None:
    from distill.evaluation.sweep.paper import PAPER_CODECS, paper_table

    rows = paper_table(names or PAPER_CODECS)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["codec"]) for row in rows)
    click.echo(f"{'codec':<{width}}  ipc  {'labels, bytes':>15}  {'views, bytes':>15}  ratio")
    for row in rows:
        labels = "by the labels" if row["labels"] is None else f"{row['labels']:,}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}x"
        click.echo(
            f"{row['codec']:<{width}}  {row['ipc']:>3}  {labels:>15}  {row['views']:>15,}  {ratio}"
        )
