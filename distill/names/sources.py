"""Which data source a source string names. Imports no torch."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from distill.errors import RecipeError
from distill.names.data import DATA
from distill.names.entries import Entry
from distill.names.own import find_own_source

# The file by which a folder that `distill pack` made is known.
PACK_INDEX = "packed.json"


def find_source(source: str) -> tuple[Entry, str]:
    """The entry of a source string, and its argument: what follows the name and a colon.

    Raises:
        RecipeError: for what names no source, or code of a module that is not allowed.
    """
    name, _, argument = source.partition(":")
    if name in DATA:
        return DATA[name], argument
    try:
        found = find_own_source(source)
    except RecipeError as error:
        said, option = _unknown(source), str(error).rpartition(" add ")[2]
        if "did you mean" in said:
            raise RecipeError(said) from None
        raise RecipeError(f"{said}; for code of a module of your own, add {option}") from None
    if found is None:
        raise RecipeError(_unknown(source))
    return found


def _unknown(source: str) -> str:
    """What to write for a source that has no known name; a path that is there is likely meant."""
    # These two take any text for a path, one that is too long or holds zeros too.
    if source and os.path.isdir(source):
        name = "packed" if Path(source, PACK_INDEX).is_file() else "folder"
        return f"source {source!r} has no name before it; did you mean {name}:{source}?"
    if source.endswith(".npz") and os.path.isfile(source):
        return f"source {source!r} has no name before it; did you mean npz:{source}?"
    close = difflib.get_close_matches(source.partition(":")[0].lower(), DATA, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"source {source!r} is unknown, one of {', '.join(DATA)} is needed; {hint}write for "
        "example digits, folder:PATH or torchvision:CIFAR10"
    )
