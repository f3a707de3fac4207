"""The seconds that a stage takes, counted on where it goes on after an interruption."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from distill.store.files import write_json

FILE = "seconds.json"


class Watch:
    """Counts seconds, and keeps the count in a folder: a process may be killed at any moment."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._before = _read(self._path)
        self._started = self._noted = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far, with those that the folder says went by before."""
        return self._before + time.monotonic() - self._started

    def note(self, at_most_every: float = 1.0) -> None:
        """Keep the count, unless this was done less than so many seconds ago."""
        now = time.monotonic()
        if now - self._noted >= at_most_every:
            write_json(self._path, self.seconds)
            self._noted = now


def _read(path: Path) -> float:
    """The count that was kept; 0 where there is none that makes sense."""
    try:
        found = float(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return 0.0
    return found if 0 <= found < math.inf else 0.0
