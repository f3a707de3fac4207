"""Programs that show the metrics of a run. Imports no torch.

An object is a class without arguments whose instances are `distill.run.loggers.MetricLogger`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from distill.errors import WorkError
from distill.names.entries import Entry, Registry

NO_LOGGER = "none"


@dataclass(frozen=True)
class LoggerEntry(Entry):
    """A program that shows metrics.

    Attributes:
        module: that must be installed.
    """

    module: str = field(default="", kw_only=True)


_HOME = "distill.run.loggers"

LOGGERS: Registry[LoggerEntry] = Registry(
    "logger",
    (
        LoggerEntry(
            "tensorboard",
            "event files in RUN/tensorboard; by default, where it is installed",
            "TensorBoard",
            f"{_HOME}.tensor_board:TensorBoard",
            module="tensorboard",
        ),
        LoggerEntry(
            "mlflow",
            "a run of the experiment limbeck, where MLFLOW_TRACKING_URI says",
            "MLflow",
            f"{_HOME}.ml_flow:MLflow",
            module="mlflow",
        ),
        LoggerEntry(
            "wandb",
            "a run of the project limbeck; WANDB_MODE=offline sends nothing",
            "Weights & Biases",
            f"{_HOME}.weights_and_biases:WeightsAndBiases",
            module="wandb",
        ),
    ),
)


def chosen_loggers(names: Sequence[str]) -> list[LoggerEntry]:
    """The entries of these names; of none at all TensorBoard's, where it is installed.

    Raises:
        WorkError: for one that is not installed.
    """
    if not names:
        default = LOGGERS["tensorboard"]
        return [default] if find_spec(default.module) else []
    found = [LOGGERS[name] for name in dict.fromkeys(names) if name != NO_LOGGER]
    for entry in found:
        if not find_spec(entry.module):
            raise WorkError(
                f"--log {entry.name} needs the package {entry.module}, which is not installed; "
                f"install limbeck[{entry.name}]"
            )
    return found
