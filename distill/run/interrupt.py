"""Ctrl-C stops a run between two steps, after a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from distill.errors import InterruptedRunError


class Stop:
    """Whether the user has asked to stop. Loops call `check` between steps."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise InterruptedRunError if the user has asked to stop."""
        if self.requested:
            raise InterruptedRunError("interrupted")


@contextmanager
def listen() -> Iterator[Stop]:
    """A Stop that SIGINT and SIGTERM set; a second signal has its earlier effect."""
    stop = Stop()
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(number, before[signal.Signals(number)])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    except ValueError:
        # Only the main thread may set handlers; elsewhere the caller decides when to stop.
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
