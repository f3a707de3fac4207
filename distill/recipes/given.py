"""Recipes of calls from Python, where networks and teachers may be objects. Imports no torch."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from distill.errors import RecipeError
from distill.names import NetworkEntry
from distill.names.own import GIVEN
from distill.recipes.loading import check_recipe, load_tables, recipe_tables, recipe_within
from distill.recipes.schema import Recipe
from distill.recipes.stages import MAKERS

# The settings of a call that names no recipe; its projector and its view of the data stay behind.
DEFAULT = "digits"

# Those of a call that names bytes alone.
DEFAULT_WITHIN = "photos-bytes"

BASE = "base"


class Parts:
    """Collects what is given: specs as they are, objects under a name of their own.

    Attributes:
        entries: of the objects.
    """

    def __init__(self) -> None:
        self.entries: list[NetworkEntry] = []

    def add(self, part: object, *, made: Any = None) -> str:
        """The spec of a part.

        Args:
            part: a spec, or an object that can be called.
            made: what builds the network in the object's place, for a teacher.

        Raises:
            RecipeError: for a part that cannot be called.
        """
        if isinstance(part, str):
            return part
        if not callable(part):
            raise RecipeError(
                f"a network or teacher of the type {type(part).__name__} came; give a spec such "
                "as convnet3:width=32, or what can be called"
            )
        base = name = f"{GIVEN}:{_name(part)}"
        count = 1
        while name in [entry.name for entry in self.entries]:
            count += 1
            name = f"{base}_{count}"
        trained = made is not None
        self.entries.append(
            NetworkEntry(
                name, "given in Python", _describe(part), given=made or part, trained=trained
            )
        )
        return name


def _name(part: Any) -> str:
    """A name for people, of letters, digits and underscores."""
    while isinstance(part, functools.partial):
        part = part.func
    name = str(getattr(part, "__name__", type(part).__name__))
    return re.sub(r"\W", "", name, flags=re.ASCII) or "network"


def _describe(part: Any) -> str:
    """A digest of what can be known of an object's code."""
    texts = []
    while isinstance(part, functools.partial):
        texts.append(repr((part.args, part.keywords)))
        part = part.func
    code = part if inspect.isroutine(part) or inspect.isclass(part) else type(part)
    try:
        texts.append(inspect.getsource(code))
    except (OSError, TypeError):
        # Typed in at a prompt: its instructions and constants.
        body = getattr(code, "__code__", None)
        texts.append(repr(code) if body is None else f"{body.co_code!r} {body.co_consts!r}")
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def python_recipe(
    recipe: str | Mapping[str, Any] | None,
    source: str,
    network: str | None,
    teachers: list[str],
    ipc: int | None,
    budget: int | None,
) -> Recipe:
    """The recipe of a call.

    Args:
        recipe: see `distill.distill`.
        source: of the data.
        network: spec of experts and students; None for the recipe's.
        teachers: specs of the committee's members; empty for the recipe's.
        ipc: images per class; None for the recipe's.
        budget: bytes that the set may take, which choose the recipe as `distill run --bytes` does;
            None for no budget.

    Raises:
        RecipeError: for an unknown recipe, key or value.
    """
    if isinstance(recipe, str) and budget is not None:
        recipe = recipe_within(recipe, [])
    alone = budget is not None and ipc is None and not teachers
    name, raw = _tables(recipe, DEFAULT_WITHIN if alone else DEFAULT)
    data = raw.setdefault("data", {})
    if not isinstance(data, dict):
        raise RecipeError(f"recipe {name}: data is no table; write its keys as a dict")
    data["source"] = source
    if network is not None:
        if "experts" in raw:
            raw["experts"] = {**raw["experts"], "network": network}
        raw["evaluate"] = {**raw.get("evaluate", {}), "students": [network]}
    if teachers:
        _with_teachers(raw, teachers)
    overrides = [] if ipc is None else [f"{_maker(name, raw)}.ipc={ipc}"]
    raw.setdefault("name", name)
    return load_tables(name, raw, overrides, budget=budget)


def relabelled(recipe: Recipe, teachers: list[str], changes: Mapping[str, Any]) -> Recipe:
    """The recipe of a set with other keys in its [relabel] table.

    Args:
        recipe: of the set.
        teachers: specs of members in place of the recipe's; empty for those.
        changes: keys of [relabel].

    Raises:
        RecipeError: for an unknown key or value.
    """
    raw = recipe.model_dump(mode="json")
    if teachers:
        _with_teachers(raw, teachers)
    raw["relabel"] = {**(raw.get("relabel") or {}), **changes}
    # What was encoded goes with the former labels.
    raw.pop("encode", None)
    return check_recipe(raw, "relabel")


def _tables(
    recipe: str | Mapping[str, Any] | None, default: str = DEFAULT
) -> tuple[str, dict[str, Any]]:
    """Name, and tables that may be changed, of the recipe of a call."""
    if recipe is None:
        raw = recipe_tables(default)
        return "python", {
            name: table for name, table in raw.items() if name not in ("data", "projector")
        }
    if isinstance(recipe, str):
        return recipe, recipe_tables(recipe)
    if not isinstance(recipe, Mapping):
        raise RecipeError(
            f"recipe is a {type(recipe).__name__}; give a recipe's name, the path of a TOML file, "
            "or a dict of tables"
        )
    raw = copy.deepcopy({key: value for key, value in recipe.items() if key != BASE})
    if BASE not in recipe:
        return str(raw.get("name", "python")), raw
    name, tables = _tables(recipe[BASE])
    for key, value in raw.items():
        both = isinstance(value, dict) and isinstance(tables.get(key), dict)
        tables[key] = {**tables[key], **value} if both else value
    return name, tables


def _with_teachers(raw: dict[str, Any], teachers: list[str]) -> None:
    """Let these vote the soft labels, with equal weights, in place of the recipe's."""
    table = {
        key: value
        for key, value in (raw.get("committee") or {}).items()
        if key not in ("recipes", "priors", "weights")
    }
    raw["committee"] = {**table, "members": teachers, "vote": "equal"}
    raw["relabel"] = raw.get("relabel") or {}
    for name, key in (("recover", "members"), ("projector", "teacher")):
        if isinstance(raw.get(name), dict):
            raw[name] = {k: value for k, value in raw[name].items() if k != key}


def _maker(name: str, raw: Mapping[str, Any]) -> str:
    makers = [maker for maker in MAKERS if maker in raw]
    if len(makers) != 1:
        raise RecipeError(f"recipe {name}: ipc has no table; add one of {', '.join(MAKERS)}")
    return makers[0]
