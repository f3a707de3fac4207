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
    """

    what: str
    batch: int
    work: Work
    cost: Callable[[int], Cost]
    parameters: int = 0


@dataclass(frozen=True)
class Part(Generic[U]):
    """`times` units of work of one kind, one after the other."""

    times: int
    unit: U


@dataclass(frozen=True)
class Task(Generic[U]):
    """`count` equal and independent pieces of work."""

    count: int
    parts: tuple[Part[U], ...]


def fixed_generator() -> Generator:
    """A generator for measurements, the same each time."""
    return Generator().manual_seed(0)


def exhaust(items: Iterable[object]) -> None:
    """Take all items and keep none."""
    for _ in items:
        pass
