"""`distill verify PATH`."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import debug


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@debug
def verify(path: Path, debug: bool) -> None:
    """Check that PATH is whole: a run's outputs by their digests, a file by its checksums.

    \b
    Example:
      distill verify runs/digits
    """
    from distill.errors import WorkError
    from distill.pipeline import changed_outputs

    if not (path / "manifest.json").is_file():
        click.echo(f"{path}: {_read_through(path)}, whole and readable")
        return
    changed = changed_outputs(path)
    if changed:
        raise WorkError(
            f"{path}: {', '.join(changed)} changed since the run; run the recipe again to remake"
        )
    click.echo(f"{path}: every output is as the run left it")


def _read_through(path: Path) -> str:
    """Read all of an artefact, so that every checksum is checked; returns its kind."""
    import projectors
    from distill.commands.show import describe
    from distill.errors import WorkError
    from distill.store import experts

    kind = str(describe(path)["kind"])
    if kind == experts.KIND:
        experts.check_snapshots(path)
    if kind == "projector":
        try:
            projectors.load(path)
        except projectors.ProjectorError as error:
            raise WorkError(f"projector {path}: {error}") from None
    return kind
