"""The cost of a stage: counts of units of work, each of which a plan times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Generator

from distill.errors import WorkError
from distill.run.dry_run import Cost

# A call to time and how many units it does, for a batch size.
Work = Callable[[int], tuple[Callable[[], object], int]]

U = TypeVar("U", covariant=True)


class NotPricedError(WorkError):
    """A stage whose time cannot be predicted; the message says why."""


@dataclass(frozen=True)
class Unit:
    """One unit of work.

    Attributes:
        what: its name.
        batch: its size, in images or in whatever the work counts instead.
        work: batch size -> a call to time, and how many units it does.
        cost: batch size -> what one unit needs, without doing it.
        parameters: of the networks in it, which decide the number of threads.
        compiled: like `work`, but with compiled networks, whose first call compiles; None where
            the recipe compiles none.
    """

    what: str
    batch: int
    work: Work
    cost: Callable[[int], Cost]
    parameters: int = 0
    compiled: Work | None = None


@dataclass(frozen=True)
class Part(Generic[U]):
    """`times` units of work of one kind, one after the other.

    Attributes:
        times: how many.
        unit: of work.
        once: what a process remembers of it, in words: the same part of another task, at the same
            place among its equals, then costs nothing; "" for nothing.
    """

    times: int
    unit: U
    once: str = ""


@dataclass(frozen=True)
class Task(Generic[U]):
    """`count` equal and independent pieces of work.

    Attributes:
        count: how many.
        parts: of one of them.
        mapped: whether workers do them, several at once, see `Context.map`.
    """

    count: int
    parts: tuple[Part[U], ...]
    mapped: bool = False


def fixed_generator() -> Generator:
    """A generator for measurements, the same each time."""
    return Generator().manual_seed(0)


def exhaust(items: Iterable[object]) -> None:
    """Take all items and keep none."""
    for _ in items:
        pass
