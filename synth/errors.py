"""Errors of the algorithms, and how a lack of memory is recognised. Imports no torch."""

from __future__ import annotations

# How torch, oneDNN, C++, HDF5, the loader of libraries and threads say that memory is short, where
# they have no type of their own for it.
_MEMORY_SIGNS = (
    "allocate memory",
    "memory allocation failed",
    "could not create a primitive",
    "bad_alloc",
    "failed to map segment",
    "can't start new thread",
)


class DivergedError(RuntimeError):
    """An optimisation diverged and cannot go on; `projectors.errors` has one of its own.

    Attributes:
        step: index of the step at which it stopped.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, on any device, whoever raised it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(sign in str(error) for sign in _MEMORY_SIGNS)
    )
