"""Groups of commands whose modules are imported only when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from distill.errors import suggestion


class LazyGroup(click.Group):
    """A group whose commands are imported by name.

    Args:
        table: command -> (module in distill.commands, attribute), in the order of the help; the
            attribute is the command, or has it under its name.
        settings: as for `click.Group`.
    """

    def __init__(self, *, table: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the table's order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.table:
            return None
        module, attribute = self.table[cmd_name]
        command = getattr(importlib.import_module(f"distill.commands.{module}"), attribute)
        return command[cmd_name] if isinstance(command, Mapping) else command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with a suggestion for an unknown command."""
        if args and not args[0].startswith("-") and args[0] not in self.table:
            raise click.UsageError(
                f"there is no command {args[0]}; {suggestion(args[0], self.table)}", ctx
            )
        return super().resolve_command(ctx, args)
