"""Errors of the algorithms."""

from __future__ import annotations


class DivergedError(RuntimeError):
    """An optimisation diverged and cannot go on; `projectors.errors` has one of its own.

    Attributes:
        step: index of the step at which it stopped.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
