"""Errors and their exit codes. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_DONE = 0

EXIT_FAILED = 1

EXIT_USAGE = 2

EXIT_DIVERGED = 3

EXIT_INTERRUPTED = 130


class LimbeckError(Exception):
    """An error to show as one line: what came, what is needed, what to do."""

    exit_code = EXIT_FAILED


class WorkError(LimbeckError):
    """A check failed, or the work could not be done."""


class RecipeError(LimbeckError):
    """The recipe or the command line is invalid."""

    exit_code = EXIT_USAGE


class DivergedRunError(LimbeckError):
    """An optimisation diverged; the last good state is kept."""

    exit_code = EXIT_DIVERGED


class InterruptedRunError(LimbeckError):
    """The user stopped the run; what was finished is kept."""

    exit_code = EXIT_INTERRUPTED


def suggestion(name: str, known: Iterable[str]) -> str:
    """A closing clause for an unknown `name`: the nearest known name, or all of them."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"choose one of {', '.join(names)}"
