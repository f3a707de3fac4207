"""Files of one JSON object to a line, which a killed run may leave with its last line cut short."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

from distill.store.files import open_beside
from distill.store.seals import fits, sealed, unsealed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows; a truncated last line is ended first."""
    with open_beside(path) as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def append_sealed(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row with its digest, for `read_sealed`."""
    append_lines(path, [sealed(row)])


def read_sealed(path: Path) -> list[dict[str, Any]]:
    """As `read_lines`, without digests; a row that does not fit its own is left out."""
    return [unsealed(row) for row in read_lines(path) if fits(row) is not False]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All rows, none if there is no such file; a line that is no JSON object is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def from_row(kind: type[Kind], row: Any) -> Kind:
    """The dataclass whose fields are a row's values.

    Raises:
        ValueError: if the row has other fields, or values of other types, as one of another
            program or of a stranger may.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row of {kind.__name__} is a {type(row).__name__}, not an object")
    others = row.keys() - {field.name for field in fields(kind)}
    if others:
        raise ValueError(f"{', '.join(sorted(others))} are no fields of {kind.__name__}")
    return TypeAdapter(kind).validate_python(row)
