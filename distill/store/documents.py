"""JSON and TOML of others, read with limits on size, depth and keys."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

# An evaluation with the confusion matrices of a thousand classes takes tens of megabytes.
_JSON_BYTES, _JSON_KEYS = 256 << 20, 1_000_000

_RECIPE_BYTES, _RECIPE_KEYS = 1 << 20, 10_000

_DEPTH = 50


def read_json(path: Path) -> Any:
    """The plain values of a JSON file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON, or beyond the limits, or a pipe or a device, which might never
            end, or never begin.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    return parse_json(read_limited(path, _JSON_BYTES))


def parse_json(text: str) -> Any:
    """The plain values of a JSON text; raises ValueError as `read_json`."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {_DEPTH} deep") from None
    _check_shape(value, _JSON_KEYS)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a recipe; raises ValueError if it is no TOML, or beyond the limits."""
    if len(text) > _RECIPE_BYTES:
        raise ValueError(_too_large(len(text), _RECIPE_BYTES))
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {_DEPTH} deep") from None
    _check_shape(value, _RECIPE_KEYS)
    return value


def read_recipe_text(path: Path) -> str:
    """The text of a recipe's file; raises OSError or ValueError as `read_json`."""
    return read_limited(path, _RECIPE_BYTES)


def read_limited(path: Path, most: int) -> str:
    """A text in UTF-8 of at most `most` bytes; raises OSError, or ValueError for another."""
    with path.open("rb") as file:
        # A device or a pipe has no size, so what comes is counted.
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(_too_large(path.stat().st_size, most))
    return content.decode("utf-8")


def _too_large(size: int, most: int) -> str:
    return f"it has {size:,} bytes, and at most {most:,} are read"


def _check_shape(value: Any, most_keys: int) -> None:
    keys, left = 0, [(value, 0)]
    while left:
        item, depth = left.pop()
        if depth > _DEPTH:
            raise ValueError(f"it is nested more than {_DEPTH} deep")
        if isinstance(item, dict):
            keys += len(item)
            left += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            left += [(inner, depth + 1) for inner in item if isinstance(inner, list | dict)]
        if keys > most_keys:
            raise ValueError(f"it has more than {most_keys:,} keys")
