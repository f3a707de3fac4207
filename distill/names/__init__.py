"""Every name that a recipe or a command may use, in one place. Imports no torch.

An entry says where its object is, and `resolve` imports it when it is first asked for; `distill ls`
prints the tables. Packages bring networks, codecs, data sources and teachers as entry points, see
`distill.names.entries`; for networks and teachers of a user's own see `distill.names.own`.
"""

from __future__ import annotations

from importlib import resources

from distill.names.augmentations import FAMILIES, sign_of, spelt_families, unknown_families
from distill.names.codecs import CODECS
from distill.names.codings import CODINGS
from distill.names.data import DATA
from distill.names.entries import (
    CodecEntry,
    CodingEntry,
    Entry,
    FormatEntry,
    GradientEntry,
    NetworkEntry,
    OptionValue,
    ProtocolEntry,
    Registry,
    SelectionEntry,
    arguments,
    load_object,
    options_of,
    resolve,
)
from distill.names.exchange import (
    EXPERT_LAYOUTS,
    FORMATS,
    HUB_LAYOUTS,
    LAYOUTS,
    PROJECTOR_FORMATS,
    importable,
)
from distill.names.gradients import GRADIENTS
from distill.names.loggers import LOGGERS, NO_LOGGER, chosen_loggers
from distill.names.networks import NETWORKS, TEACHERS
from distill.names.own import (
    allow_code,
    allowed_code,
    allowed_modules,
    code_that_is_allowed,
    find_own,
    find_own_codec,
    given_parts,
    is_own_teacher,
)
from distill.names.protocols import PROTOCOLS, UNCHANGED
from distill.names.sources import PACK_INDEX, find_source
from distill.names.strategies import LABELLING, MAKING, STRATEGIES, choices, selection

__all__ = [
    "CODECS",
    "CODINGS",
    "DATA",
    "EXPERT_LAYOUTS",
    "FAMILIES",
    "FORMATS",
    "GRADIENTS",
    "HUB_LAYOUTS",
    "LABELLING",
    "LAYOUTS",
    "LOGGERS",
    "MAKING",
    "NETWORKS",
    "NO_LOGGER",
    "PACK_INDEX",
    "PROJECTOR_FORMATS",
    "PROTOCOLS",
    "STRATEGIES",
    "TEACHERS",
    "UNCHANGED",
    "CodecEntry",
    "CodingEntry",
    "Entry",
    "FormatEntry",
    "GradientEntry",
    "NetworkEntry",
    "OptionValue",
    "ProtocolEntry",
    "Registry",
    "SelectionEntry",
    "allow_code",
    "allowed_code",
    "allowed_modules",
    "arguments",
    "choices",
    "chosen_loggers",
    "code_that_is_allowed",
    "find_own",
    "find_own_codec",
    "find_source",
    "given_parts",
    "importable",
    "is_own_teacher",
    "load_object",
    "options_of",
    "recipe_names",
    "resolve",
    "selection",
    "sign_of",
    "spelt_families",
    "unknown_families",
]


def recipe_names() -> list[str]:
    """Names of the recipes inside the package, sorted."""
    folder = resources.files("distill") / "recipes"
    return sorted(p.name[: -len(".toml")] for p in folder.iterdir() if p.name.endswith(".toml"))
