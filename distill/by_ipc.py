"""Keys of a recipe that hold a table of values by images per class. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def ipc_of(raw: Any, makers: Sequence[str]) -> int | None:
    """Images per class of a recipe that is not yet checked; None where it does not say.

    Args:
        raw: tables and keys, as TOML gives them.
        makers: tables of which one makes the set, and says how many images.
    """
    made = [raw.get(name) for name in makers] if isinstance(raw, dict) else []
    counts = [table.get("ipc") for table in made if isinstance(table, dict)]
    return counts[0] if len(counts) == 1 and isinstance(counts[0], int) else None


def at_ipc(key: str, value: Any, ipc: int) -> Any:
    """A value, or that of a table by images per class: {1 = 10, 10 = 16} is 10 up to 9, then 16.

    Below its first entry, a table holds that entry.
    """
    if not isinstance(value, dict):
        return value
    if not value or not all(str(start).isdecimal() for start in value):
        raise ValueError(
            f"{key} is a table, whose keys must be images per class, as in {{ 1 = 10, 10 = 16 }}; "
            f"got {', '.join(map(str, value)) or 'none'}"
        )
    starts = sorted(value, key=int)
    reached = [start for start in starts if int(start) <= ipc]
    return value[reached[-1] if reached else starts[0]]
