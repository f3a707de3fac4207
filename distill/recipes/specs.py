"""Specs of codecs and networks. Imports no torch.

A codec spec is parts joined by +, each `name[:option=value]...`: seed+pruned:ratio=0.9+topk:k=5
keeps a tenth of the label epochs, five entries of each label, and draws the views again from the
run's seed. At most one part of each role, in this order: views, pool, labels; see `distill ls
codecs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from distill.errors import RecipeError, suggestion
from distill.names import (
    CODECS,
    CODINGS,
    NETWORKS,
    TEACHERS,
    CodecEntry,
    CodingEntry,
    NetworkEntry,
    OptionValue,
    find_own,
    find_own_codec,
    options_of,
)
from distill.store.files import digest_if_file

_ORDER = ("views", "network", "pool", "labels")


@dataclass(frozen=True)
class CodecPart:
    """One part of a spec: its entry in the registry, and all its options with their values."""

    entry: CodecEntry
    options: Mapping[str, OptionValue]


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

    @property
    def teacher_bits(self) -> int | None:
        """Bits of each weight, where the committee itself is kept to label every view."""
        network = self.parts.get("network")
        if network is None or network.entry.name != "teacher":
            return None
        return int(network.options["bits"])

    @property
    def labels_any_view(self) -> bool:
        """Whether a network is all that labels, so that it can label other images too."""
        return "network" in self.parts and "labels" not in self.parts

    @property
    def keeps_teachers_alone(self) -> bool:
        """Whether the committee is all that is kept, and so labels every view."""
        return self.teacher_bits is not None and len(self.parts) == 1


def parse_codec(text: str) -> CodecSpec:
    """Parse a codec spec.

    Raises:
        RecipeError: for an unknown codec or option, a value of the wrong type, or parts that do
            not go together.
    """
    parts: dict[str, CodecPart] = {}
    for written in _expand_names(text).split("+"):
        part = _part(text, written)
        role = part.entry.role
        if role in parts or any(_ORDER.index(role) < _ORDER.index(other) for other in parts):
            raise RecipeError(
                f"codec {text}: {part.entry.name} cannot stand there; write at most one part of "
                f"each role, in the order {', '.join(_ORDER)}"
            )
        parts[role] = part
    if "network" in parts and ("pool" in parts or "views" in parts):
        raise RecipeError(
            f"codec {text}: a network labels every view, which comes from the seed anyway; leave "
            "out seed and pool"
        )
    if "labels" not in parts and "network" not in parts:
        raise RecipeError(
            f"codec {text} does not say how labels become bytes; add a part such as +dense"
        )
    return CodecSpec(text, parts)


def _expand_names(text: str) -> str:
    """The spec with names that stand for others replaced."""
    parts = []
    for written in text.split("+"):
        name = written.partition(":")[0]
        entry = CODECS.get(name)
        if entry is not None and entry.role == "name":
            options = _options("codec", text, entry, written)
            parts.append(entry.meaning.format(**options))
        else:
            parts.append(written)
    return "+".join(parts)


def _part(text: str, written: str) -> CodecPart:
    name = written.partition(":")[0]
    usable = [entry.name for entry in CODECS.values() if entry.role != "stored"]
    if name in usable:
        return CodecPart(CODECS[name], _options("codec", text, CODECS[name], written))
    try:
        own = find_own_codec(written)
    except RecipeError:
        # More likely a name that is misspelt than code.
        if not get_close_matches(name, usable, n=1):
            raise
        own = None
    if own is None:
        raise RecipeError(f"codec {text}: there is no codec {name!r}; {suggestion(name, usable)}")
    return CodecPart(own, _options("codec", text, own, written))


def parse_coding(text: str) -> tuple[CodingEntry, dict[str, OptionValue]]:
    """The entry of a way to keep images, and all its options with their values.

    Raises:
        RecipeError: for an unknown coding or option, or a value of the wrong type.
    """
    name = text.partition(":")[0]
    if name not in CODINGS:
        raise RecipeError(
            f"coding {text}: there is no coding {name!r}; {suggestion(name, CODINGS)}"
        )
    return CODINGS[name], _options("coding", text, CODINGS[name], text)


def _options(
    kind: str, text: str, entry: CodecEntry | CodingEntry, written: str
) -> dict[str, OptionValue]:
    options = options_of(entry)
    # The name of a user's own codec has a colon.
    for part in written.removeprefix(entry.name).split(":")[1:]:
        key, separator, value = part.partition("=")
        if not separator or key not in options:
            known = suggestion(key, options) if options else "it has none"
            raise RecipeError(f"{kind} {text}: {entry.name} has no option {key!r}; {known}")
        try:
            options[key] = type(options[key])(value)
        except ValueError:
            needed = "a whole number" if isinstance(options[key], int) else "a number"
            raise RecipeError(f"{kind} {text}: {key} is {value!r}; it must be {needed}") from None
    return options


def find_network(spec: str) -> NetworkEntry:
    """The entry of a network's, or a teacher's, spec.

    Raises:
        RecipeError: for an unknown one, or a user's own that is not allowed, or not given, now.
    """
    name = spec.partition(":")[0]
    for table in (NETWORKS, TEACHERS):
        if name in table:
            return table[name]
    known = [*NETWORKS, *TEACHERS]
    try:
        own = find_own(spec)
    except RecipeError:
        # More likely a name that is misspelt than code.
        if not get_close_matches(name, known, n=1):
            raise
        own = None
    if own is not None:
        return own
    raise RecipeError(f"there is no network {name}; {suggestion(name, known)}")


def parse_network(spec: str) -> tuple[NetworkEntry, dict[str, OptionValue]]:
    """The entry of a spec, and all its options with their values.

    Raises:
        RecipeError: for an unknown network or option, or a value of the wrong type.
    """
    entry = find_network(spec)
    options = options_of(entry)
    # The name of a user's own network has a colon.
    for part in spec.removeprefix(entry.name).split(":")[1:]:
        key, separator, value = part.partition("=")
        if entry.bare and not separator:
            key, separator, value = entry.bare, "=", part
        if not separator or key not in options:
            known = suggestion(key, options) if options else "it has none"
            raise RecipeError(f"network {spec}: unknown option {key}; {known}")
        options[key] = _network_value(spec, key, value, options[key])
    return entry, options


def network_width(spec: str) -> int:
    """The option `width` of a network's spec.

    Raises:
        RecipeError: for a network that has no such option.
    """
    entry, options = parse_network(spec)
    if not isinstance(options.get("width"), int):
        raise RecipeError(f"network {spec}: {entry.name} has no width")
    return int(options["width"])


def with_width(spec: str, width: int) -> str:
    """The spec of the network that differs in its width alone; see `network_width`."""
    name, *options = spec.split(":")
    others = [option for option in options if not option.startswith("width=")]
    return ":".join([name, f"width={width}", *others])


def _network_value(spec: str, key: str, value: str, default: OptionValue) -> OptionValue:
    if isinstance(default, str):
        return value
    if isinstance(default, float):
        try:
            return float(value)
        except ValueError:
            raise RecipeError(f"network {spec}: {key} is {value!r}; it must be a number") from None
    if not value.isdecimal() or int(value) < 1:
        raise RecipeError(f"network {spec}: {key} is {value!r}; it must be a whole number above 0")
    return int(value)


def program_digest(spec: str) -> str:
    """The digest of the file of a network that is a program; "" for any other, or without a file.

    Raises:
        RecipeError: for a program that is not allowed.
    """
    entry = find_network(spec)
    file = entry.options.get("file") if entry.trained else None
    return "" if file is None else digest_if_file(Path(str(file)))
