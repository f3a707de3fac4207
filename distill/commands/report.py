"""`distill report RUN`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from distill.commands.options import as_json, debug


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@as_json
@debug
def report(run: Path, as_json: bool, debug: bool) -> None:
    """Write RUN/report.html again from the run's files, and print its path.

    \b
    Example:
      distill report runs/digits
    """
    from distill.reporting import write_report

    path = write_report(run)
    click.echo(json.dumps({"report": str(path)}) if as_json else path)
