"""Engines: where independent jobs run."""

from __future__ import annotations

from typing import Literal

from distill.run.engines.local import Local, torch_threads
from distill.run.engines.protocol import Engine, Load, in_turn

ENGINES = ("local", "ray")


def build_engine(name: str, workers: int | Literal["auto"], address: str | None = None) -> Engine:
    """The engine called "local" or "ray".

    Args:
        name: one of `ENGINES`.
        workers: jobs at once; "auto" for as many as this machine (local) or the cluster (ray) has
            room for.
        address: of a Ray cluster; None starts one on this machine.

    Raises:
        RecipeError: for an address without ray.
        WorkError: if ray is not installed.
    """
    from distill.errors import RecipeError

    if name == "ray":
        from distill.run.engines.cluster import Ray

        return Ray(None if workers == "auto" else workers, address)
    if address is not None:
        raise RecipeError(f"--address {address} names a Ray cluster; add --engine ray, or drop it")
    return Local(workers)


__all__ = ["ENGINES", "Engine", "Load", "Local", "build_engine", "in_turn", "torch_threads"]
