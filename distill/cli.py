"""The click group; a command's module is imported only when it is used."""

from __future__ import annotations

import importlib

import click

from distill.suggest import suggestion

# command -> (module in distill.commands, attribute)
COMMANDS = {
    "run": ("run", "run"),
    "experts": ("run", "experts"),
    "match": ("run", "match"),
    "recover": ("run", "recover"),
    "select": ("run", "select"),
    "relabel": ("run", "relabel"),
    "project": ("run", "project"),
    "evaluate": ("evaluate", "evaluate"),
    "report": ("report", "report"),
    "plan": ("plan", "plan"),
    "show": ("show", "show"),
    "verify": ("verify", "verify"),
    "ls": ("ls", "ls"),
    "cp": ("cp", "cp"),
    "doctor": ("doctor", "doctor"),
    "completion": ("completion", "completion"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a run."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        return getattr(importlib.import_module(f"distill.commands.{module}"), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with a suggestion for an unknown command."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(
                f"there is no command {args[0]}; {suggestion(args[0], COMMANDS)}", ctx
            )
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="limbeck", prog_name="distill")
def cli() -> None:
    """Distil a labelled image set into a small synthetic one with compressed soft labels.

    \b
    Example:
      distill run digits --out runs/digits
    """
