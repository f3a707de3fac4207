"""Experts of another program, given as a file in place of what the stage experts makes."""

from __future__ import annotations

from pathlib import Path

from distill.errors import WorkError
from distill.recipes.specs import parse_network
from distill.run.artefacts import EXPERTS, MANIFEST
from distill.run.context import Context
from distill.run.manifest import read_manifest
from distill.run.reuse import link_or_copy
from distill.store.experts import read_info
from distill.store.files import atomic_path


def check_given(path: Path) -> None:
    """Check that a file holds experts that `distill import` made, or that a folder is a run.

    Raises:
        WorkError: if it does not.
    """
    if path.is_dir():
        _check_run(path)
        return
    if read_info(path).given is None:
        raise WorkError(
            f"{path} was made by a run, whose manifest says what from; give --reuse its folder"
        )


def _check_run(path: Path) -> None:
    if not (path / MANIFEST).exists() and any(path.glob("replay_buffer_*.pt")):
        raise WorkError(
            f"{path} holds experts of MTT, no run; read them with `distill import {path} --from "
            "buffers`, and give --reuse the file that it writes"
        )
    read_manifest(path / MANIFEST)


def take_experts(context: Context, path: Path) -> None:
    """Put given experts into a run's folder.

    Raises:
        WorkError: if they are of another network, other data or another space than the recipe's.
    """
    info = read_info(path)
    network, data = context.recipe.table("experts").network, context.recipe.data
    space = "zca" if data.zca else "normalised"
    if parse_network(info.network) != parse_network(network):
        raise WorkError(
            f"{path} holds experts of {info.network}, the recipe's are {network}; set "
            "experts.network"
        )
    if len(context.recipe.table("experts").all_networks) > 1:
        raise WorkError(f"{path} holds experts of {info.network} alone; leave out experts.networks")
    if info.data != context.data.digest:
        raise WorkError(
            f"{path} was imported with other real data than {context.data.source} with this size "
            "and these channels; import it again with --data, --size and --channels of the recipe"
        )
    if info.given is None or info.given[1] != space:
        raise WorkError(
            f"{path} holds experts trained on {'normalised' if data.zca else 'whitened'} images, "
            f"the recipe's are {space}; set data.zca = {str(not data.zca).lower()}"
        )
    with atomic_path(context.run.path / EXPERTS) as temporary:
        link_or_copy(path, temporary)
