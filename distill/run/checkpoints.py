"""What a stage saves to resume after an interruption: state, metrics and finished parts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from distill.run.folder import Run
from distill.store.tensors import load_tensors, save_tensors

# Named tensors, and a header of plain values.
Saved = tuple[dict[str, Tensor], Any]


@dataclass(frozen=True)
class CheckpointFile:
    """A file of a checkpoint.

    Attributes:
        path: of the file.
        run: that it belongs to; one that is read only, as in a worker, writes nothing.
        say: shows a line to the user.
    """

    path: Path
    run: Run
    say: Callable[[str], None]

    def save(self, tensors: dict[str, Tensor], header: Any) -> None:
        """Write tensors and a JSON-able header, in one step, under a digest."""
        if not self.run.read_only:
            self.run.check_place()
            save_tensors(self.path, tensors, header)

    def load(self, leave_out: Collection[str] = ()) -> Saved | None:
        """What was saved, without the tensors in `leave_out`; None where there is none.

        A file that does not match its digest counts as missing, and the user is told.
        """
        saved = load_tensors(self.path, leave_out)
        if saved is None and self.path.is_file():
            self.say(f"checkpoint {self.path} is damaged, and what it held is made again")
        return saved


class Checkpoint:
    """The state of a stage with the metric rows that led to it, and its finished parts.

    Rows are written to metrics.jsonl as they come. A state holds how many came before it and those
    since the state before, so that after `load` the rows are those that led to it, each once,
    wherever the process was killed.

    Attributes:
        folder: of the stage's files.
    """

    def __init__(self, run: Run, stage: str, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self._run, self._stage, self._say = run, stage, say
        self._before = 0
        self._rows: list[dict[str, Any]] = []

    def load(self) -> Saved | None:
        """The last state; drops the stage's metric rows that came after it."""
        saved = self.part("state").load()
        header: dict[str, Any] = {"before": 0, "rows": []} if saved is None else saved[1]
        self._run.keep_metrics(self._stage, header["before"])
        self._run.append_metrics(header["rows"], again=True)
        self._before, self._rows = header["before"] + len(header["rows"]), []
        return None if saved is None else (saved[0], header["header"])

    def log(self, *rows: dict[str, Any]) -> None:
        """Metric rows that lead to the next state."""
        named = [{"stage": self._stage, **row} for row in rows]
        self._rows += named
        self._run.append_metrics(named)

    def save(self, tensors: dict[str, Tensor], header: Any) -> None:
        """Save a state: named tensors and plain values."""
        rows = {"before": self._before, "rows": self._rows, "header": header}
        self.part("state").save(tensors, rows)
        self._before, self._rows = self._before + len(self._rows), []

    def part(self, name: int | str) -> CheckpointFile:
        """The file of a finished part, by its number or a name; without metric rows."""
        text = f"{name:05d}" if isinstance(name, int) else name
        return CheckpointFile(self.folder / f"{text}.safetensors", self._run, self._say)
