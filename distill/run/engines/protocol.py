"""What an engine is: where independent jobs, and work that processes share, are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from distill.errors import LimbeckError

Job = TypeVar("Job")

Result = TypeVar("Result")

Value = TypeVar("Value")

Prepare = Callable[[], Callable[[Job], Result]]

POLL_SECONDS = 0.2


class LostError(RuntimeError):
    """A team can no longer work together, as when a process has died; another one may."""


@dataclass(frozen=True)
class Rank:
    """A place in a team: `rank` of `size`, from 0, on the machine that others reach at `host`."""

    rank: int
    size: int
    host: str


OpenMember = Callable[[Rank], Any]


class Team(Protocol):
    """Processes that do one piece of work together, each of them with a member at hand."""

    @property
    def size(self) -> int:
        """Processes, at least 2."""
        ...

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every member at once; returns what they return, by rank.

        Args:
            method: its name.
            arguments: plain data and arrays: they travel to all.

        Raises:
            LimbeckError: what a member raised on purpose; also FloatingPointError.
            LostError: if a process died, or a member raised anything else: the others may then
                wait for it for ever, so the team is of no more use.
        """
        ...


@dataclass(frozen=True)
class Load:
    """What jobs take, as far as it is known before they are done.

    Attributes:
        flops: operations of all of them, see `distill.run.load`.
        bytes: memory of a process that does one of them.
    """

    flops: float
    bytes: int


class Engine(Protocol):
    """Does independent jobs. A result depends on its job alone, whatever the engine."""

    def get_ready(self) -> None:
        """Called when the program is loaded, and nothing read or computed yet."""
        ...

    def engine_for(self, jobs: int, load: Callable[[], Load], *, gpu: bool = False) -> Engine:
        """The engine that does so many jobs: this one, or one with a number of workers for them.

        Args:
            jobs: how many.
            load: says what they take, where it is asked.
            gpu: whether they compute on a GPU.
        """
        ...

    @property
    def here(self) -> bool:
        """Whether jobs are done in this process, one after another."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other machines may do jobs, whose files must then lie where all see them."""
        ...

    @property
    def threads(self) -> int | None:
        """CPU threads of each job; None for as many as torch is set to use."""
        ...

    def run_jobs(
        self,
        jobs: Sequence[Job],
        prepare: Prepare[Job, Result],
        check: Callable[[], None],
        *,
        gpu: bool = False,
    ) -> Iterator[tuple[Job, Result]]:
        """Do the jobs; yields (job, result) as each is finished.

        Args:
            jobs: plain data and arrays: they may travel to another process or machine.
            prepare: called once in every process that works, returns what does one job; a
                module's function, or `functools.partial` of one with plain data.
            check: called several times a second while waiting; what it raises ends the work.
            gpu: whether a job needs a GPU of its own, where the engine hands them out.
        """
        ...

    def team(
        self, size: int, open_member: OpenMember, check: Callable[[], None], *, gpu: bool = False
    ) -> AbstractContextManager[Team | None]:
        """Processes that start together and end with the block: up to `size`, or as there is room.

        None where that is fewer than two: the caller then works by itself.

        Args:
            size: the most that are of use.
            open_member: makes the member of a process, of whom `Team.ask` asks; a module's
                function, or `functools.partial` of one with plain data.
            check: called several times a second while the team starts; what it raises ends it.
            gpu: whether a process needs a GPU of its own.
        """
        ...


def in_turn(results: Iterable[tuple[int, Value]]) -> Iterator[tuple[int, Value]]:
    """Numbered results by their numbers 0, 1, ... however they come; early ones are held back."""
    early: dict[int, Value] = {}
    number = 0
    for index, value in results:
        early[index] = value
        while number in early:
            yield number, early.pop(number)
            number += 1


def portable(error: Exception) -> Exception:
    """An error that can travel; other kinds may need arguments to be built again."""
    if isinstance(error, LimbeckError | FloatingPointError):
        return type(error)(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")


def attempt(work: Callable[[], Any]) -> tuple[bool, Any]:
    """(False, what the work returns), or (True, what it raised in a form that can travel)."""
    try:
        return False, work()
    except Exception as error:  # noqa: BLE001 - raised again by the process that asked
        return True, portable(error)
