"""Errors of the algorithms."""

from __future__ import annotations


class DivergedError(RuntimeError):
    """The outer loop cannot go on.

    Attributes:
        step: index of the outer step at which it stopped.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
