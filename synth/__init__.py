"""Algorithms of dataset distillation on tensors and modules; no files, no commands."""

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
