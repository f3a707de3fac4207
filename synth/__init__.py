"""Algorithms of dataset distillation on tensors and modules; no files, no commands.

Names are imported when they are first used, so that `synth.errors` can be had without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synth.matching.gradients import (
        Adjoint,
        FrozenAdjoint,
        MatchingGradient,
        Unrolled,
        matching_gradient,
        parameter_distance,
    )
    from synth.matching.inner_loop import StepLabels

__all__ = [
    "Adjoint",
    "FrozenAdjoint",
    "MatchingGradient",
    "StepLabels",
    "Unrolled",
    "matching_gradient",
    "parameter_distance",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    module = "inner_loop" if name == "StepLabels" else "gradients"
    return getattr(import_module(f"synth.matching.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
