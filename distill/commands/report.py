"""`distill report RUN...`."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import allow_code, as_json, debug, place
from distill.errors import RecipeError
from distill.terminal import echo, echo_json


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--sweep",
    type=click.Path(path_type=Path),
    help="Folder of a sweep of RUN's set, for the plot of bytes against accuracy; default: "
    "RUN/sweep, if it is there.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("comparison.html"),
    show_default=True,
    help="Of several runs: the page to write.",
)
@place
@allow_code
@as_json
@debug
def report(
    runs: tuple[Path, ...],
    sweep: Path | None,
    out: Path,
    place: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Write RUN/report.html again from the run's files, or a page that compares several runs.

    RUN may also be the folder or file of a set that states what `evaluate --record` measured.

    Prints the page's path. A page is one file that needs no network. Where the real data are not
    where the recipe says, real images are left out; --data names their place.

    \b
    Example:
      distill report runs/digits
      distill report runs/digits runs/digits-mtt runs/digits-tesla --out methods.html
    """
    from distill.report.writing import write_comparison, write_report

    if len(runs) > 1 and sweep is not None:
        raise RecipeError("--sweep belongs to one run; put it into that run's folder as RUN/sweep")
    if len(runs) > 1 and place is not None:
        raise RecipeError("--data belongs to one run; leave it out, no data are needed to compare")

    def tell(text: str) -> None:
        echo(f"note: {text}", err=True)

    if len(runs) == 1:
        page = write_report(runs[0], sweep, place=place, tell=tell)
    else:
        page = write_comparison(runs, out, tell)
    if as_json:
        echo_json({"report": str(page)}, indent=None)
    else:
        echo(page)
