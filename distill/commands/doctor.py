"""`distill doctor`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from distill.commands.options import as_json, debug
from distill.errors import WorkError
from distill.terminal import echo, echo_json


@click.command()
@as_json
@debug
def doctor(as_json: bool, debug: bool) -> None:
    """Show versions, devices and data sources of this machine, for bug reports.

    \b
    Example:
      distill doctor --json
    """
    facts = _facts()
    if as_json:
        echo_json(facts)
    else:
        for name, value in facts.items():
            echo(f"{name}: {value}")
    missing = [name for name, version in facts["versions"].items() if version == "not installed"]
    if missing:
        raise WorkError(f"not installed: {', '.join(missing)}; install the package limbeck again")


def _facts() -> dict[str, Any]:
    import torch

    from distill.data.sources.fashion import DEBIAN_FOLDER
    from distill.run.folder import versions

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": versions(),
        "cpu threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "cuda devices": devices,
        "fashion-mnist": Path(DEBIAN_FOLDER).is_dir(),
    }
