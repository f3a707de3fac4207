"""Networks and teachers of a user's own that no package brings. Imports no torch.

A spec `MODULE:OBJECT` names a network of an importable module, `teacher:MODULE:OBJECT` one that
comes with its weights. Neither is imported unless the user has allowed that module: a recipe may
come from anyone. What is given in Python is named `given:NAME` for as long as the call takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from distill.errors import RecipeError
from distill.names.entries import NetworkEntry

GIVEN = "given"

TEACHER = "teacher"

# No name that begins with an underscore: those are nobody's to call from outside.
_NAME = r"[A-Za-z]\w*"

_CODE = re.compile(rf"(?:{TEACHER}:)?({_NAME}(?:\.{_NAME})*):({_NAME})(?=:|$)", re.ASCII)

_allowed: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())

_given: ContextVar[Mapping[str, NetworkEntry]] = ContextVar("given")


@contextmanager
def allowed_code(modules: Iterable[str]) -> Iterator[None]:
    """Let specs name what these modules define, and no others, until the block ends.

    Raises:
        RecipeError: for what is no name of a module.
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
    """The modules that specs may name now, sorted."""
    return tuple(sorted(_allowed.get()))


def _checked(modules: Iterable[str]) -> frozenset[str]:
    names = frozenset(modules)
    for name in names:
        if not re.fullmatch(rf"{_NAME}(\.{_NAME})*", name, re.ASCII):
            raise RecipeError(
                f"--allow-code got {name!r}, but the name of a module is needed; write it as in "
                "--allow-code my_networks"
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
    match = _CODE.match(spec)
    if match is None:
        return None
    module, attribute = match.groups()
    if module not in _allowed.get():
        raise RecipeError(
            f"network {spec} is code of the module {module}, which a recipe cannot run by itself; "
            f"if you trust that module, add --allow-code {module}"
        )
    return NetworkEntry(
        match.group(),
        "code of your own",
        module,
        f"{module}:{attribute}",
        package=module,
        trained=spec.startswith(f"{TEACHER}:"),
        code=True,
    )


def is_own_teacher(spec: str) -> bool:
    """Whether a spec names a teacher of the user's own, without looking whether it is allowed."""
    entry = _given.get({}).get(":".join(spec.split(":")[:2]))
    return spec.startswith(f"{TEACHER}:") or (entry is not None and entry.trained)
