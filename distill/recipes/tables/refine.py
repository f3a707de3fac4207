"""The recipe's table [refine]. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distill.recipes.key_types import Count, Positive, Table


class RefineTable(Table):
    """Images updated so that a tower sees them the same without their fine detail."""

    tower: str = "glyphclip"
    steps: Count = 10
    lr: Positive = 0.01
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    batch_size: Count = 128
