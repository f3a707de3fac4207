"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class TensorBoard:
    """Writes event files to RUN/tensorboard, which `tensorboard --logdir RUN` shows."""

    def __init__(self) -> None:
        self._writer: Any = None

    def begin(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """Open an event file of this process."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / FOLDER))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Add a point."""
        self._writer.add_scalar(name, value, step)

    def end(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
