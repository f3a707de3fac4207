"""Progress on standard error: a bar with rate and time left, or plain lines without a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from distill.run.loggers import MetricLogger
from distill.terminal import echo, visible


class Advance(Protocol):
    """Called after each unit of work, with a note to show."""

    def __call__(self, note: str = "", count: int = 1) -> None:
        """Count `count` more units as done; below 0, that many must be done again."""
        ...


@dataclass(frozen=True)
class Event:
    """How far a run is, for a user's own display.

    Attributes:
        stage: the task that is under way, such as "match"; "" for a sentence that is said.
        done: units of it that are done.
        total: its units.
        note: what is known of it, such as a loss; or the sentence.
    """

    stage: str
    done: int
    total: int
    note: str


@dataclass
class Counted(Advance):
    """Progress that is counted and not shown, as by a worker: its units, and the last note."""

    units: int = 0
    note: str = ""

    @override
    def __call__(self, note: str = "", count: int = 1) -> None:
        self.units += count
        self.note = note or self.note


class Progress:
    """Shows how far a task is. `quiet` shows nothing; `tell` is called instead of showing it.

    Attributes:
        advance: of the task that is under way.
        loggers: programs that are shown a run's metrics as well, by name.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        every_seconds: float = 15.0,
        tell: Callable[[Event], object] | None = None,
        loggers: Mapping[str, MetricLogger] | None = None,
    ) -> None:
        self.loggers = dict(loggers or {})
        self.advance: Advance = Counted()
        self._tell = tell
        self._quiet = quiet
        self._every = every_seconds
        self._terminal = not quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """One line on standard error, or an event."""
        if self._tell is not None:
            self._tell(Event("", 0, 0, text))
        elif not self._quiet:
            echo(text, err=True)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        """A task of `total` units, `done` of them already."""
        before = self.advance
        try:
            if self._tell is not None:
                self.advance = _telling(self._tell, name, total, done)
                yield self.advance
            elif self._terminal:
                with self._bar(name, total, done) as self.advance:
                    yield self.advance
            else:
                self.advance = self._lines(name, total, done)
                yield self.advance
        finally:
            self.advance = before

    @contextmanager
    def _bar(self, name: str, total: int, done: int) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        parts, room = bar_parts(console.width, total)
        columns = {
            "name": TextColumn("{task.description:<10}"),
            "bar": BarColumn(bar_width=parts.get("bar")),
            "count": MofNCompleteColumn(),
            "rate": TextColumn("{task.fields[rate]}"),
            "elapsed": TimeElapsedColumn(),
            "left": TimeRemainingColumn(),
            "note": TextColumn("{task.fields[note]}", markup=False),
        }
        started, finished = time.monotonic(), 0
        shown = [column for part, column in columns.items() if part in parts]
        with Progress(*shown, console=console) as bar:
            task = bar.add_task(name, total=total, completed=done, note="", rate="")

            def advance(note: str = "", count: int = 1) -> None:
                nonlocal finished
                finished += count
                rate = finished / max(time.monotonic() - started, 1e-9)
                words = shortened(visible(note), room)
                bar.update(task, advance=count, note=words, rate=f"{rate:.2g}/s")

            yield advance

    def _lines(self, name: str, total: int, done: int) -> Advance:
        started = last = time.monotonic()
        finished = done

        def advance(note: str = "", count: int = 1) -> None:
            nonlocal last, finished
            finished += count
            now = time.monotonic()
            if now - last < self._every and finished < total:
                return
            last = now
            rate = (finished - done) / max(now - started, 1e-9)
            left = (total - finished) / rate if rate > 0 else 0.0
            self.say(f"{name:<10} {finished}/{total}  {rate:.2g}/s  {left:.0f} s left  {note}")

        return advance


# Columns that a note needs; of a narrow terminal, other parts give way for it.
_NOTE = 34

_LEAST_BAR, _WIDEST_BAR = 10, 30


def bar_parts(width: int, total: int) -> tuple[dict[str, int], int]:
    """What a line of progress shows in a terminal, and the columns that are left for a note.

    What is done, and the time left, are always there; the bar gives way first, then the rate, then
    the time that has passed.

    Args:
        width: of the terminal, in columns.
        total: units of the task.

    Returns:
        Part -> its columns, without the space behind it; and the columns of the note.
    """
    count = 2 * len(str(total)) + 1
    parts = {"name": 10, "count": count, "left": 7}
    room = width - sum(parts.values()) - len(parts)
    for part, size in (("elapsed", 7), ("rate", 9)):
        if room - size - 1 >= _NOTE:
            parts[part] = size
            room -= size + 1
    bar = min(_WIDEST_BAR, room - _NOTE - 1)
    if bar >= _LEAST_BAR:
        parts["bar"] = bar
        room -= bar + 1
    return {**parts, "note": max(room, 0)}, max(room, 0)


def shortened(text: str, room: int) -> str:
    """A text in at most `room` columns, with an ellipsis where it is cut."""
    return text if len(text) <= room else text[: max(room - 1, 0)] + "\u2026" * min(room, 1)


def _telling(tell: Callable[[Event], object], name: str, total: int, done: int) -> Advance:
    """Calls `tell` after every unit."""
    finished = done

    def advance(note: str = "", count: int = 1) -> None:
        nonlocal finished
        finished += count
        tell(Event(name, finished, total, note))

    return advance
