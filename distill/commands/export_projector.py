"""`distill export projector PATH`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.options import NameChoice, as_json, debug, licence
from distill.names import PROJECTOR_FORMATS
from distill.terminal import echo_json, echo_lines


@click.command("projector")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=NameChoice(list(PROJECTOR_FORMATS)),
    required=True,
    help="What to write.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="A new folder, with its card."
)
@click.option("--tower", help="Spec of the tower, where it lies elsewhere than PATH says.")
@click.option(
    "--base/--no-base",
    default=None,
    help="peft: put the tower in the folder; default: unless open_clip fetches it by name.",
)
@click.option(
    "--bits", type=click.Choice(["8", "4"]), default="8", show_default=True, help="compact: bits."
)
@click.option(
    "--coder",
    type=click.Choice(["zstandard", "constriction"]),
    default="zstandard",
    show_default=True,
    help="compact: entropy coder.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="compact: a set.h5 to compare on; default: held-out images of the run around PATH.",
)
@licence
@as_json
@debug
def export_projector(
    path: Path, out: Path, form: str, bits: str, coder: str, as_json: bool, debug: bool, **rest: Any
) -> None:
    """Write a projector (PATH: its folder, or a run's) for other programs.

    Each format is loaded again outside this package's classes, and refused if its probabilities
    differ by more than 1e-4; a compact folder, which only this package reads, is compared on
    images instead.

    \b
    Example:
      distill export projector runs/digits --format peft --out exported
    """
    import projectors
    from distill.sets.exchange import projector

    storage = projectors.Storage(int(bits), coder) if form == "compact" else None
    request = projector.ExportRequest(form, storage=storage, **rest)
    written = projector.export_projector(path, out, request)
    if as_json:
        echo_json({"out": str(out), **written})
        return
    echo_lines(summary_lines(out, written))


def summary_lines(out: Path, written: dict[str, Any]) -> list[str]:
    """What was written, for people."""
    lines = [
        f"{out}: {written['bytes']:,} bytes in {len(written['files'])} files, and README.md; "
        f"{written['external bytes']:,} bytes to fetch elsewhere",
        "largest difference of probabilities on random images: "
        f"{written['largest difference']:.1e}",
    ]
    for against, fidelity in written["fidelity"].items():
        if fidelity is not None:
            lines.append(
                f"against {against}: KL {fidelity['kl']:.5f}, agreement "
                f"{100 * fidelity['agreement']:.2f} %, accuracy {100 * fidelity['accuracy']:.2f} %"
            )
    return lines
