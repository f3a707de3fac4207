"""`distill audit SET`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from distill.commands.options import (
    allow_code,
    as_json,
    debug,
    device,
    html_page,
    place,
    quiet,
    workers,
)
from distill.terminal import echo, echo_json, echo_lines


@click.command()
@click.argument("set_path", metavar="SET", type=click.Path(path_type=Path))
@place
@click.option("--student", default="", help="Network spec; default: the recipe's first student.")
@click.option(
    "--labels",
    default="",
    help="Of the attacked students; default: learned, else votes, else hard.",
)
@click.option(
    "--students",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Students of the set that are attacked together.",
)
@click.option(
    "--references",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Networks of random real images that they are compared with, at least 3; 0: no attack.",
)
@click.option("--epochs", type=click.IntRange(1), help="Of all students; default: the recipe's.")
@html_page("the nearest real images of each image")
@allow_code
@device
@workers
@as_json
@quiet
@debug
def audit(
    set_path: Path,
    place: str | None,
    student: str,
    labels: str,
    students: int,
    references: int,
    epochs: int | None,
    html: Path | None,
    device: str | None,
    workers: int | Literal["auto"],
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Measure what SET (a set.h5, or a run's folder) gives away of the images it was made from.

    Compares its images with all training images, and attacks students that are trained on it:
    which images were in the training data? Members are the training images, others the test images.
    No finding is no proof: a stronger attack may find more.

    \b
    Example:
      distill audit runs/digits --html audit.html
    """
    from distill.errors import RecipeError
    from distill.evaluation.checks.audit import AuditOptions, audit_set
    from distill.evaluation.checks.audit_page import audit_page
    from distill.report.pages import refuse_other_file, write_page
    from distill.run.engines import Local

    if references in (1, 2):
        raise RecipeError(
            f"--references {references} came, 3 or more are needed, or 0 for no attack"
        )
    if html is not None:
        refuse_other_file(html, "--html")
    options = AuditOptions(student, labels, students, references, epochs, place)
    found = audit_set(set_path, options, device, Local(workers), quiet=quiet)
    if html is not None:
        write_page(html, audit_page(found, str(set_path)))
    if as_json:
        echo_json({"set": str(set_path), **found.to_dict()})
        return
    echo_lines(found.findings())
    if html is not None:
        echo(html)
