"""The click group; a command's module is imported only when it is used."""

from __future__ import annotations

import os

import click

from distill.commands.lazy import LazyGroup
from distill.recipes.stages import STAGE_ENTRIES
from distill.run.allocator import keep_freed_memory

# command -> (module in distill.commands, attribute), see `LazyGroup`
COMMANDS = {
    "run": ("run", "run"),
    **{stage.name: ("run", "VERBS") for stage in STAGE_ENTRIES.values() if stage.verb},
    "encode": ("encode", "encode"),
    "compress": ("compress", "compress"),
    "merge": ("merge", "merge"),
    "extend": ("extend", "extend"),
    "order": ("order", "order"),
    "evaluate": ("evaluate", "evaluate"),
    "sweep": ("sweep", "sweep"),
    "audit": ("audit", "audit"),
    "report": ("report", "report"),
    "plan": ("plan", "plan"),
    "inspect": ("inspect", "inspect"),
    "show": ("show", "show"),
    "verify": ("verify", "verify"),
    "pack": ("pack", "pack"),
    "import": ("import_set", "import_set"),
    "export": ("export", "export"),
    "ls": ("ls", "ls"),
    "cp": ("cp", "cp"),
    "doctor": ("doctor", "doctor"),
    "completion": ("completion", "completion"),
}


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="limbeck", prog_name="distill")
def cli() -> None:
    """Distil a labelled image set into a small synthetic one with compressed soft labels.

    \b
    Example:
      distill run digits --out runs/digits
    """
    keep_freed_memory()
    if os.environ.get("NO_COLOR"):
        # See no-color.org; rich reads the variable itself.
        click.get_current_context().color = False
