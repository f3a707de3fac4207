"""MLflow: a run of the experiment `limbeck`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXPERIMENT = "limbeck"

# What a metric's name may not hold.
_REFUSED = re.compile(r"[^\w\-./ ]")


class MLflow:
    """Logs to where MLFLOW_TRACKING_URI says, or where MLflow does by itself."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run = ""

    def begin(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """Begin a run that is called like the folder, with the recipe's keys as parameters."""
        from mlflow import MlflowClient

        self._client = MlflowClient()
        known = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else self._client.create_experiment(EXPERIMENT)
        name = folder.resolve().name
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in flat(recipe).items():
            self._client.log_param(self._run, _REFUSED.sub("_", key), str(value)[:500])

    def scalar(self, name: str, value: float, step: int) -> None:
        """Log a metric."""
        self._client.log_metric(self._run, _REFUSED.sub("_", name), value, step=step)

    def end(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


def flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's keys as TABLE.KEY, without tables that are not there."""
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        elif value is not None:
            found[name] = value
    return found
