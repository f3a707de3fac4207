"""`distill export {set|projector|hub}`."""

from __future__ import annotations

import click

from distill.commands.lazy import LazyGroup

# what is exported -> (module in distill.commands, attribute)
EXPORTS = {
    "set": ("export_set", "export_set"),
    "projector": ("export_projector", "export_projector"),
    "hub": ("export_hub", "export_hub"),
}


@click.group(cls=LazyGroup, table=EXPORTS)
def export() -> None:
    """Write a set or a projector in a format that other programs read, or send both to a hub.

    \b
    Example:
      distill export projector runs/digits/projector --format peft --out exported
    """
