"""Weights & Biases: a run of the project `limbeck`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = "limbeck"


class WeightsAndBiases:
    """Logs to its service, or with WANDB_MODE=offline to files in the run's folder."""

    def __init__(self) -> None:
        self._run: Any = None
        self._defined: set[str] = set()

    def begin(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """Begin a run that is called like the folder, with the recipe as its configuration."""
        import wandb

        name, config = folder.resolve().name, dict(recipe)
        self._run = wandb.init(project=PROJECT, name=name, config=config, dir=str(folder))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Log a point; each stage has steps of its own, as stages begin at 0 again."""
        axis = f"{name.partition('/')[0]}/step"
        if name not in self._defined:
            self._run.define_metric(name, step_metric=axis)
            self._defined.add(name)
        self._run.log({name: value, axis: step})

    def end(self) -> None:
        """Finish the run."""
        self._run.finish()
