"""Differentiable augmentation whose random choice and application are two calls."""

from synth.augment.dsa_families import DSA_FAMILIES, FAMILIES, Family
from synth.augment.mix import Mix, MixKind, draw_mix
from synth.augment.views import Augmentation, View, dsa, parse_families

__all__ = [
    "DSA_FAMILIES",
    "FAMILIES",
    "Augmentation",
    "Family",
    "Mix",
    "MixKind",
    "View",
    "draw_mix",
    "dsa",
    "parse_families",
]
