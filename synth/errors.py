"""Errors of the algorithms."""

from __future__ import annotations

import torch

# How torch, oneDNN and C++ say on a CPU that memory is short: without a type of its own.
_MEMORY_SIGNS = (
    "allocate memory",
    "memory allocation failed",
    "could not create a primitive",
    "bad_alloc",
)


class DivergedError(RuntimeError):
    """An optimisation diverged and cannot go on; `projectors.errors` has one of its own.

    Attributes:
        step: index of the step at which it stopped.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def lacks_memory(error: RuntimeError) -> bool:
    """Whether tensors could not be had for lack of memory, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in str(error) for sign in _MEMORY_SIGNS
    )
