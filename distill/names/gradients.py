"""The gradients of matching by name. Imports no torch.

An object is a class whose instances are `synth.matching.gradients.GradientMethod`; it is built from
the keys of [match] that its entry takes.
"""

from __future__ import annotations

from distill.names.entries import GradientEntry, Registry

GRADIENTS: Registry[GradientEntry] = Registry(
    "gradient",
    (
        GradientEntry(
            "adjoint",
            "exact, in memory that does not grow with the inner steps",
            "Limbeck",
            "synth.matching.gradients:Adjoint",
            takes=("snapshots", "compiled"),
        ),
        GradientEntry(
            "frozen",
            "TESLA's: exact for one inner step only",
            "Cui et al. 2023",
            "synth.matching.gradients:FrozenAdjoint",
            takes=("snapshots", "compiled"),
        ),
        GradientEntry(
            "unrolled",
            "exact, by automatic differentiation of all inner steps",
            "MTT, through higher",
            "synth.matching.gradients:Unrolled",
        ),
    ),
)
