"""Other programs that show the metrics of a run while it goes on."""

from distill.run.loggers.listening import MetricLogger, Row, listening, scalars_of

__all__ = ["MetricLogger", "Row", "listening", "scalars_of"]
