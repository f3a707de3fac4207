"""`distill report RUN`."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import debug


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@debug
def report(run: Path, debug: bool) -> None:
    """Write RUN/report.html again from the run's files, and print its path.

    \b
    Example:
      distill report runs/digits
    """
    from distill.reporting import write_report

    click.echo(write_report(run))
