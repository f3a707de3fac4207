"""Registries of names that can be chosen, each with where its object is. Imports no torch.

A registry is Limbeck's own entries and, where it has a group, those that installed packages bring
as entry points of that group. An object is imported when it is first resolved, see `resolve`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from distill.errors import RecipeError, WorkError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


# What an option of a spec may be.
OptionValue = int | float | str


@dataclass(frozen=True)
class Entry:
    """A name that can be chosen.

    Attributes:
        name: as written in recipes and commands.
        summary: one line for people.
        source: the paper, package or file that it comes from.
        object: where its object is, "package.module:Object"; "" for a value of a recipe's key that
            the code of a stage reads by itself.
        takes: keys of the recipe's table, or options of the command, that the object takes as
            keyword arguments of the same names.
        package: the installed package, or the user's own module, that brings it; "" for Limbeck's
            own.
        code: whether it is code of a user's own, which may change without a version.
    """

    name: str
    summary: str
    source: str
    object: str = ""
    takes: tuple[str, ...] = field(default=(), kw_only=True)
    package: str = field(default="", kw_only=True)
    code: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class NetworkEntry(Entry):
    """A network family; its object is called as (channels, size, classes, **options).

    Attributes:
        options: keyword arguments and their defaults; a spec may override each of them.
        bare: the option whose value a spec may write without its name.
        trained: whether it comes with its weights, and so can only be a member of a committee.
        given: the object itself, where it was given in Python; it is a user's own too.
    """

    options: Mapping[str, OptionValue] = field(default_factory=dict)
    bare: str = ""
    trained: bool = False
    given: Any = None

    @property
    def own(self) -> bool:
        """Whether it is a user's own, of whom nothing is known."""
        return self.code or self.given is not None


@dataclass(frozen=True)
class GradientEntry(Entry):
    """A gradient of matching; its object is built from the keys of [match] that it takes.

    Attributes:
        like: the method whose memory and operations it has, for `distill plan`; "" for one that is
            counted by itself.
    """

    like: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class CodecEntry(Entry):
    """A label codec, a part of one, or labels that are stored as they are.

    The object is the codec's class, for the roles pool and labels; a pool's takes the codec of
    what it keeps as its first argument.

    Attributes:
        role: "stored" (part of the set, never encoded), "views" (how a receiver gets the views),
            "network" (a payload that labels views), "pool" (which labels are kept), "labels"
            (how labels become bytes) or "name" (stands for `meaning`).
        options: names and defaults; a spec may override each of them.
        meaning: for a name, the spec that it stands for, with its options in braces.
    """

    role: str = "stored"
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    meaning: str = ""


@dataclass(frozen=True)
class CodingEntry(Entry):
    """A way to keep images; its object is called as (shape, **options), see `synth.coding`.

    Attributes:
        options: names and defaults; a spec may override each of them.
    """

    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True)
class SelectionEntry(Entry):
    """A value of select.method.

    Attributes:
        reads: "features": the object is a rule, called as (features [n, d], count) -> places
            [count] for the images of each class; "images" or "teachers": it is called as
            (context, table) -> images [k * ipc, c, h, w], and "teachers" needs a [committee];
            "experts": it is called as (context, table) -> how difficult each real image is, [m] on
            the CPU, and needs [experts].
    """

    reads: str = field(default="images", kw_only=True)


@dataclass(frozen=True)
class ProtocolEntry(Entry):
    """How the students of an evaluation are trained.

    Attributes:
        training: "trajectory", "kd" or "hard" for every label source; "" for that of each.
        sets: keys of [evaluate] and the values that they have unless they are written beside it.
    """

    training: str = field(default="", kw_only=True)
    sets: Mapping[str, Any] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class FormatEntry(Entry):
    """A format of sets; its object is called as (folder, set, arrays) and writes the files.

    Attributes:
        file: the one file that holds all of a set, from which it can be imported again; "" where
            there is none.
        reader: where the function is that reads that file, "package.module:function".
    """

    file: str = ""
    reader: str = ""


E = TypeVar("E", bound=Entry)


class Registry(Mapping[str, E], Generic[E]):
    """The names of one kind, in order: Limbeck's own, then those of installed packages.

    Args:
        kind: what they name, for messages.
        entries: Limbeck's own.
        group: of the entry points that packages bring; "" where only Limbeck's own count.
        make: (name, summary, source, object, package=...) -> the entry of such an entry point.
        beside: other names of the same specs, which packages may not take either.
    """

    def __init__(
        self,
        kind: str,
        entries: Iterable[E],
        group: str = "",
        make: Callable[..., E] | None = None,
        beside: Mapping[str, Entry] | None = None,
    ) -> None:
        self.kind = kind
        self.own = {entry.name: entry for entry in entries}
        self.group = group
        self._make = make
        # Not `beside or {}`, which would read that registry now.
        self._beside = {} if beside is None else beside

    def __getitem__(self, name: str) -> E:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def _all(self) -> dict[str, E]:
        """Every entry. Raises WorkError for an entry point whose name cannot be used."""
        entries = dict(self.own)
        if self._make is None:
            return entries
        # Imported late: it is slow, and the help of a command reads no such table.
        from importlib.metadata import entry_points

        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            package, about = _described(point)
            if not re.fullmatch(r"[\w.-]+", point.name):
                raise WorkError(
                    f"the package {package} brings a {self.kind} {point.name!r}, but a name has "
                    "letters, digits, dots, dashes and underscores alone; uninstall it, or ask its "
                    "authors for another name"
                )
            taken = entries.get(point.name) or self._beside.get(point.name)
            if taken is not None:
                other = taken.package
                raise WorkError(
                    f"the package {package} brings a {self.kind} {point.name}, which is a name of "
                    f"{f'the package {other}' if other else 'Limbeck itself'}; uninstall it, or "
                    "ask its authors for another name"
                )
            entries[point.name] = self._make(
                point.name, about, package, point.value.partition("[")[0].strip(), package=package
            )
        return entries


def _described(point: EntryPoint) -> tuple[str, str]:
    """Name and version, and the summary, of the package that brings an entry point."""
    if point.dist is None:
        return "of no name", "no summary"
    about = str(point.dist.metadata["Summary"] or "no summary")
    return f"{point.dist.metadata['Name']} {point.dist.version}", about


def resolve(entry: Entry) -> Any:
    """The object of an entry; its module is imported on first use.

    Raises:
        WorkError: for one of another package that cannot be imported.
        RecipeError: for a user's own code that lacks it, or has it from elsewhere.
    """
    if isinstance(entry, NetworkEntry) and entry.given is not None:
        return entry.given
    if not entry.package:
        return load_object(entry.object)
    try:
        found = load_object(entry.object)
    except Exception as error:  # noqa: BLE001 - the module of another package may raise anything
        reason = " ".join(str(error).split())[:200]
        raise WorkError(
            f"{entry.name} of the package {entry.package} cannot be imported "
            f"({type(error).__name__}: {reason}); {_remedy(entry)}"
        ) from None
    if entry.code:
        _refuse_foreign(entry, found)
    return found


def _remedy(entry: Entry) -> str:
    if entry.code:
        return "put its folder on PYTHONPATH (the current folder is not searched), or mend it"
    return "install what it needs, or uninstall it"


def _refuse_foreign(entry: Entry, found: object) -> None:
    """Refuse what an allowed module has imported itself, such as a function of `os`."""
    home = str(getattr(found, "__module__", ""))
    if not callable(found) or not f"{home}.".startswith(f"{entry.package}."):
        kind, called = "data source", "called with a distill.data.Request"
        if isinstance(entry, NetworkEntry):
            kind, called = "network", "called as (channels, size, classes)"
        elif isinstance(entry, CodecEntry):
            kind, called = "codec", "a codec"
        raise RecipeError(
            f"{kind} {entry.name}: {entry.object} is no class or function that {entry.package} "
            f"defines; name one, {called}"
        )


def load_object(location: str) -> Any:
    """The object at "package.module:Object"."""
    module, _, path = location.partition(":")
    target = importlib.import_module(module)
    for part in path.split("."):
        target = getattr(target, part)
    return target


def arguments(entry: Entry, values: Any) -> dict[str, Any]:
    """What the object of an entry takes of a table's keys, or a request's options."""
    return {key: getattr(values, key) for key in entry.takes}


def options_of(entry: NetworkEntry | CodecEntry | CodingEntry) -> dict[str, OptionValue]:
    """The options of an entry and their defaults.

    Those of another package's are the numbers and texts among the defaults of its object's
    parameters, so its module is imported.

    Raises:
        WorkError: if it cannot be imported, or has no parameters that can be read.
    """
    if not entry.package:
        return dict(entry.options)
    try:
        parameters = inspect.signature(resolve(entry)).parameters.values()
    except (TypeError, ValueError) as error:
        raise WorkError(
            f"{entry.name} of the package {entry.package} cannot be called ({error}); ask its "
            "authors for a class or a function"
        ) from None
    defaults = {parameter.name: parameter.default for parameter in parameters}
    return {
        name: value
        for name, value in defaults.items()
        if isinstance(value, int | float | str) and not isinstance(value, bool)
    }
