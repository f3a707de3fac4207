"""What is said of every name that can be chosen. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """A name that can be chosen.

    Attributes:
        name: as written in recipes.
        summary: one line for people.
        source: the paper, package or file that it comes from.
    """

    name: str
    summary: str
    source: str


@dataclass(frozen=True)
class NetworkEntry(Entry):
    """A network family.

    Attributes:
        kind: name of the class in `synth.networks`.
        options: keyword arguments and their defaults; a spec may override each of them.
        bare: the option whose value a spec may write without its name.
    """

    kind: str = ""
    options: Mapping[str, int | str] = field(default_factory=dict)
    bare: str = ""


@dataclass(frozen=True)
class CodecEntry(Entry):
    """A label codec, a part of one, or labels that are stored as they are.

    Attributes:
        role: "stored" (part of the set, never encoded), "views" (how a receiver gets the views),
            "network" (a payload that labels views), "pool" (which labels are kept), "labels"
            (how labels become bytes) or "name" (stands for `meaning`).
        codec: id of the codec in `projectors.codecs`, for the roles pool and labels.
        options: names and defaults; a spec may override each of them.
        meaning: for a name, the spec that it stands for, with its options in braces.
    """

    role: str = "stored"
    codec: str = ""
    options: Mapping[str, int | float | str] = field(default_factory=dict)
    meaning: str = ""
