"""Parts of a user's own that no package brings. Imports no torch.

`MODULE:OBJECT` names a network, a label codec or a data source of an importable module, where a
recipe has such a part, and `teacher:MODULE:OBJECT` a network that comes with its weights. None is
imported unless the user has allowed that module: a recipe may come from anyone. The same holds of
`torch-export:FILE`, a teacher as a program of torch.export, which torch unpickles. What is given in
Python is named `given:NAME` for as long as the call takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from distill.errors import RecipeError
from distill.names.entries import CodecEntry, Entry, NetworkEntry

GIVEN = "given"

TEACHER = "teacher"

PROGRAM = "torch-export"

_PROGRAM_FILE = ".pt2"

# No name that begins with an underscore: those are nobody's to call from outside.
_NAME = r"[A-Za-z]\w*"

_PLAIN_CODE = re.compile(rf"({_NAME}(?:\.{_NAME})*):({_NAME})(?=:|$)", re.ASCII)

_CODE = re.compile(rf"(?:{TEACHER}:)?{_PLAIN_CODE.pattern}", re.ASCII)

_allowed: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())

_given: ContextVar[Mapping[str, NetworkEntry]] = ContextVar("given")


@contextmanager
def allowed_code(modules: Iterable[str]) -> Iterator[None]:
    """Let specs name what these modules define, and no others, until the block ends.

    Args:
        modules: their names; or the paths of programs of torch.export.

    Raises:
        RecipeError: for what is no name of a module, and no such path.
    """
    token = _allowed.set(_checked(modules))
    try:
        yield
    finally:
        _allowed.reset(token)


def allow_code(modules: Iterable[str]) -> None:
    """As `allowed_code`, for the rest of a worker's life."""
    _allowed.set(_checked(modules))


def code_that_is_allowed() -> tuple[str, ...]:
    """The modules and programs that specs may name now, sorted."""
    return tuple(sorted(_allowed.get()))


def allowed_modules() -> tuple[str, ...]:
    """As `code_that_is_allowed`, without programs of torch.export."""
    return tuple(name for name in code_that_is_allowed() if not name.endswith(_PROGRAM_FILE))


def _checked(modules: Iterable[str]) -> frozenset[str]:
    names = frozenset(modules)
    for name in names:
        if not name.endswith(_PROGRAM_FILE) and not re.fullmatch(
            rf"{_NAME}(\.{_NAME})*", name, re.ASCII
        ):
            raise RecipeError(
                f"--allow-code got {name!r}, but the name of a module is needed, or a "
                f"{_PROGRAM_FILE} file; write it as in --allow-code my_networks"
            )
    return names


@contextmanager
def given_parts(entries: Iterable[NetworkEntry]) -> Iterator[None]:
    """Let specs name these entries, and those that are given already, until the block ends."""
    token = _given.set({**_given.get({}), **{entry.name: entry for entry in entries}})
    try:
        yield
    finally:
        _given.reset(token)


def find_own(spec: str) -> NetworkEntry | None:
    """The entry of a spec that names a user's own code or object; None where it names neither.

    Raises:
        RecipeError: for a module that is not allowed, or an object that is not given now.
    """
    name, _, rest = spec.partition(":")
    if name == GIVEN:
        found = _given.get({}).get(f"{GIVEN}:{rest.partition(':')[0]}")
        if found is None:
            raise RecipeError(
                f"network {spec} was given in Python; give it again, as network or teachers of "
                "distill.evaluate, or name other students"
            )
        return found
    if name == PROGRAM:
        return _program(spec, rest)
    match = _code(spec, "network", _CODE)
    if match is None:
        return None
    module, attribute = match.groups()
    return NetworkEntry(
        match.group(),
        "code of your own",
        module,
        f"{module}:{attribute}",
        package=module,
        trained=spec.startswith(f"{TEACHER}:"),
        code=True,
    )


def find_own_codec(spec: str) -> CodecEntry | None:
    """The entry of a part of a codec's spec that names code of a user's own; None for another.

    Raises:
        RecipeError: for a module that is not allowed.
    """
    match = _code(spec, "codec", _PLAIN_CODE)
    if match is None:
        return None
    module, attribute = match.groups()
    place = f"{module}:{attribute}"
    return CodecEntry(
        match.group(), "code of your own", module, place, role="labels", package=module, code=True
    )


def find_own_source(source: str) -> tuple[Entry, str] | None:
    """The entry of a data source that is code of a user's own, and its argument; None for another.

    Raises:
        RecipeError: for a module that is not allowed.
    """
    match = _code(source, "source", _PLAIN_CODE)
    if match is None:
        return None
    module, attribute = match.groups()
    place = f"{module}:{attribute}"
    entry = Entry(match.group(), "code of your own", module, place, package=module, code=True)
    return entry, source.removeprefix(match.group()).removeprefix(":")


def _code(text: str, kind: str, form: re.Pattern[str]) -> re.Match[str] | None:
    """Where a text names an object of a module; raises RecipeError for one that is not allowed."""
    match = form.match(text)
    if match is not None and match.group(1) not in _allowed.get():
        module = match.group(1)
        raise RecipeError(
            f"{kind} {text} is code of the module {module}, which a recipe cannot run by itself; "
            f"if you trust that module, add --allow-code {module}"
        )
    return match


def _program(spec: str, path: str) -> NetworkEntry:
    """The entry of a teacher as a program of torch.export."""
    if path not in _allowed.get():
        raise RecipeError(
            f"network {spec} is a program, which torch unpickles and which a recipe cannot load by "
            f"itself; if you trust that file, add --allow-code {path or 'FILE.pt2'}"
        )
    return NetworkEntry(
        spec,
        "a program of your own",
        path,
        "distill.teachers.exported:exported_teacher",
        options={"file": path},
        trained=True,
    )


def is_own_teacher(spec: str) -> bool:
    """Whether a spec names a teacher of the user's own, without looking whether it is allowed."""
    entry = _given.get({}).get(":".join(spec.split(":")[:2]))
    taught = spec.startswith((f"{TEACHER}:", f"{PROGRAM}:"))
    return taught or (entry is not None and entry.trained)
