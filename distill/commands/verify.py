"""`distill verify PATH`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click

from distill.commands.options import allow_code, as_json, debug, device, place, quiet, workers
from distill.terminal import echo_json, echo_lines


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--accuracy",
    is_flag=True,
    help="Also train the students of the stored accuracy again, and say whether it holds.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Difference, as a fraction, that counts as the same accuracy.",
)
@place
@click.option(
    "--download",
    is_flag=True,
    help="First fetch the towers that PATH's projectors name; nothing else asks the network.",
)
@allow_code
@device
@workers
@as_json
@quiet
@debug
def verify(
    path: Path,
    accuracy: bool,
    tolerance: float,
    place: str | None,
    download: bool,
    device: str | None,
    workers: int | Literal["auto"],
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Check that PATH is intact: runs and packed data by their digests, a file by its checksums.

    With --accuracy, also check the stored accuracies of a set. A failed check exits with code 1.

    \b
    Example:
      distill verify runs/digits/set.h5 --accuracy
    """
    from distill.errors import RecipeError, WorkError

    if place is not None and not accuracy:
        raise RecipeError("--data is for --accuracy, as nothing else reads the data; add it")
    if download:
        from distill.sets.towers import fetch_towers

        fetch_towers(path)
    outcome: dict[str, Any] = {"path": str(path), "whole": _whole(path)}
    lines, failed = [f"{path}: {outcome['whole']}"], 0
    if accuracy:
        from distill.evaluation.whole import verify_accuracy
        from distill.run.engines import Local

        claims = verify_accuracy(path, tolerance, device, quiet, Local(workers), place=place)
        outcome["accuracy"] = [{**asdict(claim), "holds": claim.holds} for claim in claims]
        failed = sum(not claim.holds for claim in claims)
        lines += [
            f"{claim.student}  {claim.labels:<10}  stored {100 * claim.stored:.2f} %, "
            f"{_claim_text(claim.now, claim.holds)}"
            for claim in claims
        ]
    if as_json:
        echo_json(outcome)
    else:
        echo_lines(lines)
    if failed:
        raise WorkError(
            f"{path}: {failed} of {len(outcome['accuracy'])} stored accuracies do not hold; "
            "evaluate the set again, or ask whoever shared it"
        )


def _claim_text(now: float | None, holds: bool) -> str:
    if now is None:
        return "not checked: its labels are not beside the set"
    return f"now {100 * now:.2f} %: {'holds' if holds else 'does not hold'}"


def _whole(path: Path) -> str:
    """A sentence on what is intact; raises WorkError if something is not."""
    from distill.data.sources.packed import verify_packed
    from distill.errors import WorkError
    from distill.sets.set_file import lone_set
    from distill.stages.verification import look_at
    from distill.store.packed import INDEX

    path = lone_set(path) or path
    if (path / INDEX).is_file():
        if verify_packed(path):
            return f"packed data as they were packed{_unchecked(path)}"
        raise WorkError(f"{path}: the data are no longer those that were packed; pack them again")
    if not (path / "manifest.json").is_file():
        return f"{_read_through(path)}, whole and readable{_unchecked(path)}"
    state = look_at(path)
    if state.changed:
        remedies = dict.fromkeys(state.changed.values())
        what = (
            f"{', '.join(name for name, what in state.changed.items() if what == remedy)} changed "
            f"since the run: {remedy}"
            for remedy in remedies
        )
        raise WorkError(f"{path}: {'; '.join(what)}")
    return state.sentence()


def _unchecked(path: Path) -> str:
    """What is said of an artefact whose texts have no digest, or beside which lies more."""
    from distill.store.attributes import broken_attributes
    from distill.store.documents import read_json
    from distill.store.packed import INDEX, read_index
    from distill.store.seals import fits

    beside: list[str] = []
    if path.is_file():
        old = broken_attributes(path) is None
    elif (path / INDEX).is_file():
        old = not read_index(path).sealed
    else:
        description = read_json(path / "projector.json")
        old = fits(description) is None
        own = {"projector.json", *description["files"]}
        beside = sorted(entry.name for entry in path.iterdir() if entry.name not in own)
    words = "; written before there were digests of texts, so its texts are not checked" * old
    return words + (f"; not part of it, so not checked: {', '.join(beside)}" if beside else "")


def _read_through(path: Path) -> str:
    """Read all of an artefact, so that every checksum is checked; returns its kind."""
    import projectors
    from distill.commands.show import describe
    from distill.errors import WorkError
    from distill.store import experts

    kind = str(describe(path)["kind"])
    if kind == experts.EXPERTS_KIND:
        experts.check_snapshots(path)
    if kind == "projector":
        try:
            projectors.load(path)
        except projectors.ProjectorError as error:
            raise WorkError(f"projector {path}: {error}") from None
    return kind
