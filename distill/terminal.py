"""What a user reads on a terminal, whoever wrote the words. Imports no torch.

A class, a recipe or a file may be named by a stranger, and a terminal obeys what lies between the
letters: titles, colours, answers that are typed for the user. So every line goes through here.
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

import click

# Invisible, but part of words: they join letters of Persian and Indic scripts, and of emoji.
_JOINERS = "\u200c\u200d"

_LONGEST_ERROR = 2000


def visible(text: str) -> str:
    r"""Text on one line: control characters and marks of direction are written as \u001b."""
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) else json.dumps(c)[1:-1] for c in text)


def _is_shown(character: str) -> bool:
    joins = character in _JOINERS or unicodedata.category(character) == "Zs"
    return character.isprintable() or joins


def echo(line: object, *, err: bool = False, bold: bool = False) -> None:
    """One line on standard output, or on standard error."""
    shown = visible(str(line))
    click.echo(click.style(shown, bold=True) if bold else shown, err=err)


def echo_lines(lines: Iterable[object], *, err: bool = False) -> None:
    """Several lines."""
    for line in lines:
        echo(line, err=err)


def columns() -> int | None:
    """Columns of the terminal that standard output is; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """A JSON document, in printable ASCII."""
    click.echo(json.dumps(value, indent=indent).replace("\x7f", "\\u007f"))


def echo_error(message: str) -> None:
    """An error on one line; the middle of an endless one is left out."""
    words = " ".join(message.split())
    if len(words) > _LONGEST_ERROR:
        words = f"{words[: _LONGEST_ERROR // 2]} ... {words[-_LONGEST_ERROR // 2 :]}"
    echo(f"error: {words}", err=True)
