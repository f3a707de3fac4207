"""Every name that a recipe or a command may use, in one place. Imports no torch.

A name becomes an object in `distill.recipes.build`, which reads these tables; `distill ls`
prints them.
"""

from __future__ import annotations

from importlib import resources

from distill.recipes.names.codecs import CODECS
from distill.recipes.names.data import DATA
from distill.recipes.names.entries import CodecEntry, Entry, NetworkEntry
from distill.recipes.names.gradients import GRADIENTS
from distill.recipes.names.networks import NETWORKS
from distill.recipes.names.strategies import LABELLING, MAKING, STRATEGIES

__all__ = [
    "CODECS",
    "DATA",
    "GRADIENTS",
    "LABELLING",
    "MAKING",
    "NETWORKS",
    "STRATEGIES",
    "CodecEntry",
    "Entry",
    "NetworkEntry",
    "recipe_names",
]


def recipe_names() -> list[str]:
    """Names of the recipes inside the package, sorted."""
    folder = resources.files("distill") / "recipes"
    return sorted(p.name[: -len(".toml")] for p in folder.iterdir() if p.name.endswith(".toml"))
