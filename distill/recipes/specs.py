"""Codec specs: parts joined by +, each `name[:option=value]...`. Imports no torch.

seed+pruned:ratio=0.9+topk:k=5 keeps a tenth of the label epochs, five entries of each label, and
draws the views again from the run's seed. At most one part of each role, in this order: views,
pool, labels; see `distill ls codecs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.errors import RecipeError, suggestion
from distill.recipes.names import CODECS, NETWORKS, CodecEntry, NetworkEntry

_ORDER = ("views", "network", "pool", "labels")


@dataclass(frozen=True)
class CodecPart:
    """One part of a spec: its entry in the registry, and all its options with their values."""

    entry: CodecEntry
    options: Mapping[str, int | float | str]


@dataclass(frozen=True)
class CodecSpec:
    """A parsed spec.

    Attributes:
        text: as it was written; the name of the labels in a set.
        parts: by role.
    """

    text: str
    parts: Mapping[str, CodecPart]

    @property
    def seeded(self) -> bool:
        """Whether the views are drawn again from a seed."""
        return "views" in self.parts

    def config(self, batch_size: int) -> dict[str, Any]:
        """What `projectors.codecs.get_codec` builds the codec from.

        Args:
            batch_size: places of one batch of the labels, which a pool of batches keeps whole.
        """
        part = self.parts["labels"]
        config: dict[str, Any] = {"id": part.entry.codec, **part.options}
        pool = self.parts.get("pool")
        if pool is not None:
            config = {
                "id": pool.entry.codec,
                "inner": config,
                "batch_size": batch_size,
                **pool.options,
            }
        return config


def parse_codec(text: str) -> CodecSpec:
    """Parse a codec spec.

    Raises:
        RecipeError: for an unknown codec or option, a value of the wrong type, or parts that do
            not go together.
    """
    found: dict[str, CodecPart] = {}
    for written in _spelled_out(text).split("+"):
        part = _part(text, written)
        role = part.entry.role
        if role in found or any(_ORDER.index(role) < _ORDER.index(other) for other in found):
            raise RecipeError(
                f"codec {text}: {part.entry.name} cannot stand there; write at most one part of "
                f"each role, in the order {', '.join(_ORDER)}"
            )
        found[role] = part
    if "network" in found and ("pool" in found or "views" in found):
        raise RecipeError(
            f"codec {text}: a network labels every view, which comes from the seed anyway; leave "
            "out seed and pool"
        )
    if "labels" not in found and "network" not in found:
        raise RecipeError(
            f"codec {text} does not say how labels become bytes; add a part such as +dense"
        )
    return CodecSpec(text, found)


def _spelled_out(text: str) -> str:
    """The spec with names that stand for others replaced."""
    parts = []
    for written in text.split("+"):
        name = written.partition(":")[0]
        entry = CODECS.get(name)
        if entry is not None and entry.role == "name":
            parts.append(entry.meaning.format(**_options(text, entry, written)))
        else:
            parts.append(written)
    return "+".join(parts)


def _part(text: str, written: str) -> CodecPart:
    name = written.partition(":")[0]
    usable = [entry.name for entry in CODECS.values() if entry.role != "stored"]
    if name not in usable:
        raise RecipeError(f"codec {text}: there is no codec {name!r}; {suggestion(name, usable)}")
    return CodecPart(CODECS[name], _options(text, CODECS[name], written))


def _options(text: str, entry: CodecEntry, written: str) -> dict[str, int | float | str]:
    options = dict(entry.options)
    for part in written.split(":")[1:]:
        key, separator, value = part.partition("=")
        if not separator or key not in options:
            known = suggestion(key, options) if options else "it has none"
            raise RecipeError(f"codec {text}: {entry.name} has no option {key!r}; {known}")
        options[key] = _codec_value(text, key, value, options[key])
    return options


def _codec_value(text: str, key: str, value: str, default: int | float | str) -> int | float | str:
    try:
        return type(default)(value)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise RecipeError(f"codec {text}: {key} is {value!r}; it must be {kind}") from None


def parse_network(spec: str) -> tuple[NetworkEntry, dict[str, int | str]]:
    """The registry's entry for a spec, and all its options with their values.

    Raises:
        RecipeError: for an unknown network or option, or a value of the wrong type.
    """
    name, *parts = spec.split(":")
    if name not in NETWORKS:
        raise RecipeError(f"there is no network {name}; {suggestion(name, NETWORKS)}")
    entry = NETWORKS[name]
    options = dict(entry.options)
    for part in parts:
        key, separator, value = part.partition("=")
        if entry.bare and not separator:
            key, separator, value = entry.bare, "=", part
        if not separator or key not in options:
            raise RecipeError(f"network {spec}: unknown option {key}; {suggestion(key, options)}")
        options[key] = _network_value(spec, key, value, options[key])
    return entry, options


def _network_value(spec: str, key: str, value: str, default: int | str) -> int | str:
    if isinstance(default, str):
        return value
    if not value.isdecimal() or int(value) < 1:
        raise RecipeError(f"network {spec}: {key} is {value!r}; it must be a whole number above 0")
    return int(value)
