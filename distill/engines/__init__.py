"""Engines: where independent jobs run."""

from distill.engines.local import run_jobs

__all__ = ["run_jobs"]
