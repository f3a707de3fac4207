"""What identifies parts of a user's own, whose code may change between two runs."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from distill.names import Entry, NetworkEntry, resolve
from distill.recipes.early import network_specs
from distill.recipes.specs import find_network, parse_codec
from distill.run.context import Context


def code_digests(context: Context, tables: Iterable[str]) -> dict[str, str]:
    """A digest of each own network or codec that some tables of a run's recipe name, by its spec.

    It covers the source and, of a network, the module as it is built for the run's data; of a
    teacher also its weights.

    Args:
        context: of the run; what its recipe names must be allowed, or given.
        tables: such as "experts".
    """
    specs = network_specs(context.recipe)
    named = {spec for table in tables for spec in specs.get(table, [])}
    found = {spec: _digest(context, spec) for spec in sorted(named) if find_network(spec).own}
    encode = context.recipe.encode
    if "encode" in tables and encode is not None and encode.codec is not None:
        for part in parse_codec(encode.codec).parts.values():
            if part.entry.code:
                text = _file_of(part.entry)
                found[part.entry.name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _digest(context: Context, spec: str) -> str:
    entry = find_network(spec)
    network = context.network(spec, "digest")
    found = hashlib.sha256(_source(entry).encode())
    found.update(repr(network).encode())
    for name, value in network.state_dict().items():
        found.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        if entry.trained and isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _source(entry: NetworkEntry) -> str:
    """The file of a module that is allowed, or what is known of an object that is given."""
    return entry.source if entry.given is not None else _file_of(entry)


def _file_of(entry: Entry) -> str:
    """The text of the module of code that is allowed."""
    module = sys.modules[resolve(entry).__module__]
    try:
        return Path(inspect.getsourcefile(module) or "").read_text(encoding="utf-8")
    except (OSError, TypeError, ValueError):
        # A compiled module: its built network must do.
        return ""
