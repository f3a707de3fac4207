"""Recipes: TOML files checked against the tables. Imports no torch."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.errors import RecipeError, suggestion
from distill.names import PROTOCOLS, recipe_names
from distill.recipes.schema import TABLES, Recipe
from distill.recipes.tables.experts import ExpertsTable
from distill.recipes.tables.match import MatchTable
from distill.recipes.tables.select import SelectTable
from distill.store.documents import parse_toml, read_recipe_text

# What pydantic calls the types of a key that takes several, such as a number or a name.
_TYPES = ("literal", "function-after", "constrained-int", "constrained-float", "float", "int")

# Tables that make a set within a budget, and what a search may choose there.
_SEARCHED = {
    name: table.searchable for name, table in (("match", MatchTable), ("select", SelectTable))
}


def load_recipe(
    name: str,
    overrides: list[str] | None = None,
    seed: int | None = None,
    budget: int | None = None,
) -> Recipe:
    """Read a recipe by the name of a packaged one, or by path, and apply overrides.

    Args:
        name: e.g. "digits" or "mine.toml".
        overrides: "table.key=value" strings; values are TOML, or plain text. Without a value, a key
            or a table is left out, as if the recipe did not have it.
        seed: replaces the recipe's seed.
        budget: bytes that the set may take. Where the recipe does not say how images are kept, a
            search chooses that, and whatever of match.ipc and match.factor no override names; of
            selected images there are as many as fit. If the recipe names another one as
            `within_bytes`, that one is read instead.

    Raises:
        RecipeError: for an unknown recipe, key or value, in one line.
    """
    if budget is not None:
        name = recipe_within(name, overrides or [])
    return load_tables(name, recipe_tables(name), overrides, seed, budget)


def recipe_within(name: str, overrides: list[str]) -> str:
    """The recipe that is read for this one within a budget of bytes: another, or itself.

    Args:
        name: as of `load_recipe`.
        overrides: as there; they may set `within_bytes`, or leave it out.

    Raises:
        RecipeError: as there.
    """
    raw = recipe_tables(name)
    for override in overrides:
        if override.partition("=")[0].strip() == "within_bytes":
            _override(raw, override)
    within = raw.get("within_bytes")
    return within if isinstance(within, str) else name


def recipe_tables(name: str) -> dict[str, Any]:
    """The tables and keys of a packaged recipe or of a file, not yet checked."""
    return _parse(name, recipe_text(name))


def load_tables(
    name: str,
    raw: dict[str, Any],
    overrides: list[str] | None = None,
    seed: int | None = None,
    budget: int | None = None,
) -> Recipe:
    """As `load_recipe`, from tables and keys, which are changed."""
    if budget is not None:
        overrides = [*_budget_keys(name, raw, budget, overrides or []), *(overrides or [])]
    for override in overrides or []:
        _override(raw, override)
    if seed is not None:
        raw["seed"] = seed
    raw.setdefault("name", Path(name).stem)
    return _checked(raw, f"recipe {name}")


def _budget_keys(name: str, raw: dict[str, Any], budget: int, overrides: list[str]) -> list[str]:
    """The keys that a budget sets."""
    maker = next((maker for maker in _SEARCHED if isinstance(raw.get(maker), dict)), None)
    if maker is None:
        raise RecipeError(
            f"recipe {name} neither matches trajectories nor selects real images, so --bytes has "
            "nothing to fit into a budget; run it without and use `distill compress`"
        )
    found = [f"{maker}.budget_bytes={budget}"]
    if "images" in raw[maker]:
        return found
    given = {override.partition("=")[0].strip() for override in overrides}
    open_keys = [key for key in _SEARCHED[maker] if f"{maker}.{key}" not in given]
    return [*found, f"{maker}.search={open_keys}"]


def check_recipe(raw: Any, origin: str) -> Recipe:
    """The recipe that a run or a set stores; keys may have the names of an earlier version.

    Args:
        raw: tables and keys, as JSON gives them.
        origin: where they come from, for the message.

    Raises:
        RecipeError: with the first few problems, in one line.
    """
    return _checked(_with_new_names(raw), origin)


def _with_new_names(raw: Any) -> Any:
    """The values with the keys of earlier versions renamed."""
    if not isinstance(raw, dict):
        return raw
    tables = {
        name: {
            new if (new := TABLES[name].renamed.get(key, key)) not in values else key: value
            for key, value in values.items()
        }
        for name, values in raw.items()
        if name in TABLES and isinstance(values, dict)
    }
    return {**raw, **tables}


def _checked(raw: Any, origin: str) -> Recipe:
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{origin}: {_one_line(error)}") from None


def recipe_text(name: str) -> str:
    """The TOML text of a packaged recipe or of a file."""
    packaged = resources.files("distill") / "recipes" / f"{name}.toml"
    if re.fullmatch(r"[\w.-]+", name) and packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        try:
            return read_recipe_text(path)
        except (OSError, ValueError) as error:
            raise RecipeError(f"recipe {name} cannot be read: {error}") from None
    if path.suffix == ".toml":
        raise RecipeError(
            f"recipe {name} is not a file; name a TOML file or one of `distill ls recipes`"
        )
    if path.is_dir():
        raise RecipeError(
            f"{name} is a folder, not a recipe; for the images in it take a recipe and add --set "
            f"data.source=folder:{name}, as in distill run photos-ipc1"
        )
    raise RecipeError(f"there is no recipe {name}; {suggestion(name, recipe_names())}")


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        return parse_toml(text)
    except ValueError as error:
        raise RecipeError(f"recipe {name} is not TOML: {error}") from None


def _override(raw: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or len(parts) > 2 or not all(parts):
        raise RecipeError(f"--set got {text!r}; write table.key=value, as in --set match.ipc=10")
    table = raw
    for part in parts[:-1]:
        table = table.setdefault(part, {}) if value.strip() else table.get(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set got {text!r}, but {part} is not a table")
    if value.strip():
        table[parts[-1]] = _value(value.strip())
    else:
        table.pop(parts[-1], None)


def _value(text: str) -> Any:
    """A TOML value of a type that recipes have, or the text itself."""
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    plain = isinstance(parsed["value"], bool | int | float | str | list | dict)
    return parsed["value"] if plain and len(parsed) == 1 else text


def _one_line(error: ValidationError) -> str:
    """The first few problems of a recipe, each with its key."""
    by_key: dict[str, list[str]] = {}
    for item in error.errors():
        location = tuple(part for part in item["loc"] if not _is_type(part))
        problem = _problem(item["type"], location, item["msg"])
        problem += _unset_hint(location, item.get("input"))
        key, colon, text = problem.partition(": ")
        by_key.setdefault(key + colon, []).append(text)
    problems = [key + " or ".join(texts) for key, texts in by_key.items()]
    rest = len(problems) - 3
    return "; ".join(problems[:3]) + (f"; and {rest} more" if rest > 0 else "")


def _is_type(part: int | str) -> bool:
    """Whether a part of a location names a type, of a key that takes several, and no key."""
    return str(part).partition("[")[0] in _TYPES


def _problem(kind: str, location: tuple[int | str, ...], message: str) -> str:
    key = ".".join(str(part) for part in location if not isinstance(part, int))
    if kind == "extra_forbidden":
        table = TABLES.get(str(location[0]), Recipe)
        new = table.renamed.get(str(location[-1])) if len(location) == 2 else None
        if new is not None:
            return f"{key} is called {location[0]}.{new} now; rename it"
        return f"unknown key {key}; {_nearest_key(location)}"
    if kind == "missing":
        return f"{key} is missing"
    text = message.removeprefix("Value error, ").replace("Input should", "it should")
    return f"{key}: {text}" if key else text


def _unset_hint(location: tuple[int | str, ...], value: object) -> str:
    """How to leave a key out, for who writes that it is none."""
    if str(value).lower() not in ("none", "null") or len(location) != 2:
        return ""
    key = f"{location[0]}.{location[1]}"
    return f"; to leave it out, give no value: --set {key}="


def _nearest_key(location: tuple[int | str, ...]) -> str:
    """What may have been meant by an unknown key: at the top, also a key of a table."""
    name = str(location[-1])
    known = _known(location[:-1])
    owners = [table for table, model in TABLES.items() if name in model.model_fields]
    if len(location) == 1 and owners:
        *others, last = (f"{table}.{name}" for table in owners)
        return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
    return suggestion(name, known)


def _known(path: tuple[int | str, ...]) -> list[str]:
    model = TABLES.get(str(path[0]), Recipe) if path else Recipe
    return list(model.model_fields)


def with_evaluation(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with other keys in its [evaluate] table."""
    table = {"students": [_first_network(recipe)]}
    if recipe.evaluate is not None:
        table = recipe.evaluate.model_dump()
    if "protocol" in changes:
        table = _without_protocol(table, str(changes["protocol"]))
    raw = {**recipe.model_dump(), "evaluate": {**table, **changes}}
    return check_recipe(raw, "evaluate")


def _without_protocol(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The keys of [evaluate] that a protocol called `name` leaves, and not the old one's own."""
    old = PROTOCOLS[table["protocol"]].sets if "protocol" in table else {}
    new = PROTOCOLS[name].sets if name in PROTOCOLS else {}
    return {
        key: value
        for key, value in table.items()
        if key not in new and not (key in old and old[key] == value)
    }


def _first_network(recipe: Recipe) -> str:
    """A student for a set whose recipe names none: a network that it was made with."""
    if recipe.experts is not None:
        return recipe.experts.network
    return recipe.committee.members[0] if recipe.committee else ExpertsTable().network
