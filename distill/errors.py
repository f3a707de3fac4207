"""What can go wrong, and the exit code of each kind. Imports nothing heavy."""

from __future__ import annotations

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
    """The recipe, or the command line, asks for something that cannot be."""

    exit_code = EXIT_USAGE


class DivergedRunError(LimbeckError):
    """An optimisation diverged; the last good state is kept."""

    exit_code = EXIT_DIVERGED


class InterruptedRunError(LimbeckError):
    """The user stopped the run; what was finished is kept."""

    exit_code = EXIT_INTERRUPTED
