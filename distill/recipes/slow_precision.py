"""What to say of a precision that this processor has no instructions for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from distill.recipes.schema import Recipe

# Either is enough for oneDNN's convolutions in bfloat16; without them an x86 processor converts
# number by number.
_INSTRUCTIONS = ("avx512_bw", "avx_ne_convert")

_TABLES = ("experts", "committee", "recover", "evaluate")


def capabilities() -> Mapping[str, Any]:
    """What this processor can do, by name; empty where torch does not say."""
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def precision_note(recipe: Recipe, device: torch.device, processor: Mapping[str, Any]) -> str:
    """A sentence on bfloat16 where it is slower than float32, "" where nothing is known against it.

    Args:
        recipe: that is to be planned or run.
        device: where.
        processor: its `capabilities`.
    """
    if device.type != "cpu" or processor.get("architecture") != "x86_64":
        return ""
    if any(processor.get(name) for name in _INSTRUCTIONS):
        return ""
    tables = [
        name
        for name in _TABLES
        if getattr(getattr(recipe, name), "precision", "float32") == "bfloat16"
    ]
    if not tables:
        return ""
    keys = [f"{name}.precision" for name in tables]
    settings = " ".join(f"--set {key}=float32" for key in keys)
    verb = "is" if len(keys) == 1 else "are"
    return (
        f"{' and '.join(keys)} {verb} bfloat16, which this processor has no instructions for and "
        f"computes several times slower than float32; add {settings}"
    )
