"""`distill completion SHELL`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from distill.commands.options import NameChoice, debug


@click.command()
@click.argument("shell", type=NameChoice(["bash", "zsh", "fish"]))
@debug
def completion(shell: str, debug: bool) -> None:
    """Print the completion script of SHELL, to be sourced.

    \b
    Example:
      distill completion bash > ~/.local/share/bash-completion/completions/distill
    """
    from distill.commands.cli import cli

    completion_class = get_completion_class(shell)
    if completion_class is not None:
        click.echo(completion_class(cli, {}, "distill", "_DISTILL_COMPLETE").source())
