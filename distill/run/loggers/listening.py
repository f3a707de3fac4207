"""The rows that stages write to metrics.jsonl, as named curves for other programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]

# Keys along which a stage goes on; the first one that a row has is its step.
_STEPS = ("step", "epoch", "seed")

# Whole numbers that say whose row it is.
_NAMES = ("expert",)


class MetricLogger(Protocol):
    """A program that shows curves. Any method may raise anything; the run then goes on without."""

    def begin(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """A process goes on with the run in this folder, of this resolved recipe."""
        ...

    def scalar(self, name: str, value: float, step: int) -> None:
        """A point of the curve of this name: letters, digits and any of `/ = : . , _ -`."""
        ...

    def end(self) -> None:
        """The process is done with the run, or failed."""
        ...


def scalars_of(row: Row) -> tuple[int, list[tuple[str, float]]]:
    """The step of a row, and its finite numbers by name: stage, whose it is, and key.

    Args:
        row: of metrics.jsonl, with its `stage`.
    """
    step = next((key for key in _STEPS if key in row), "")
    own = [
        str(value)
        for key, value in row.items()
        if key not in ("stage", step) and (isinstance(value, str) or key in _NAMES)
    ]
    found = [
        ("/".join([str(row["stage"]), *own, key]), float(value))
        for key, value in row.items()
        if key != step and key not in _NAMES and _is_number(value)
    ]
    return (int(row[step]) if step else 0), found


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


@contextmanager
def listening(
    loggers: Mapping[str, MetricLogger],
    folder: Path,
    recipe: Mapping[str, Any],
    say: Callable[[str], None],
) -> Iterator[Callable[[Sequence[Row]], None]]:
    """What is to be called with new rows, while the loggers are open.

    A logger that fails is said once, and left out from then on: curves are not worth a run.

    Args:
        loggers: by name.
        folder: of the run.
        recipe: resolved, as plain values.
        say: is told of those that fail.
    """
    left = dict(loggers)

    def attempt(call: Callable[[MetricLogger], None]) -> None:
        for name, logger in list(left.items()):
            try:
                call(logger)
            except Exception as error:  # noqa: BLE001 - another program may raise anything
                del left[name]
                reason = " ".join(str(error).split())[:200]
                say(f"note: {name} shows no more metrics ({type(error).__name__}: {reason})")

    def hear(rows: Sequence[Row]) -> None:
        points = [
            (name, value, step) for step, values in map(scalars_of, rows) for name, value in values
        ]

        def show(logger: MetricLogger) -> None:
            for point in points:
                logger.scalar(*point)

        attempt(show)

    attempt(lambda logger: logger.begin(folder, recipe))
    try:
        yield hear
    finally:
        attempt(lambda logger: logger.end())
