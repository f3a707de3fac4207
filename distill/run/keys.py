"""Why a stage's outputs are not those that a recipe asks for, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# What a stage's entry in the manifest holds of everything that its key is the digest of.
MADE_FROM = "made_from"

# Longer values are not shown.
_LONGEST = 40

_MOST_SHOWN = 4


def differences(entry: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between what a finished stage was made from and what is asked for now.

    Args:
        entry: of the stage, in a manifest.
        now: everything that decides its outputs; see `distill.stages.pipeline`.

    Returns:
        A clause, such as "match.lr was 0.1 and is 0.2".
    """
    before = entry.get(MADE_FROM)
    if not isinstance(before, Mapping) or before.get("version") != now["version"]:
        return "it was made by another version of this program"
    found = list(_differences(before, now))
    more = f", and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return "; ".join(found[:_MOST_SHOWN]) + more


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before.get("data") != now["data"]:
        yield "the data are others than before (their digest has changed)"
    if before.get("seed") != now["seed"]:
        yield f"seed was {before.get('seed')} and is {now['seed']}"
    tables = _mapping(before.get("tables"))
    for table, keys in now["tables"].items():
        yield from _changes(table, _mapping(tables.get(table)), keys)
    for name in sorted({*_mapping(before.get("inputs")), *now["inputs"]}):
        if _mapping(before.get("inputs")).get(name) != now["inputs"].get(name):
            yield f"what {name} made has changed"
    code = _mapping(now.get("code"))
    for spec in code:
        if _mapping(before.get("code")).get(spec) != code[spec]:
            yield f"the code or weights of {spec} have changed"
    if before.get("derived") != now["derived"]:
        yield "what it takes from other tables of the recipe has changed"


def _changes(table: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            texts = [str(values.get(key)) for values in (before, now)]
            shown = f" was {texts[0]} and is {texts[1]}"
            yield f"{table}.{key}{shown if max(map(len, texts)) <= _LONGEST else ' has changed'}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
