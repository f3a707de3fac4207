"""The recipe's table [data]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from distill.recipes.key_types import Count, Families, Table, split_commas

# Keys that say where the data are and how they are read: their digest says what came of them.
READING_KEYS = ("source", "size", "channels", "classes", "subset", "validation", "skip_damaged")


class DataTable(Table):
    """Which real images."""

    source: str
    size: Annotated[int, Field(ge=4)] | None = None
    channels: Literal[1, 3] | None = None
    classes: Annotated[list[str | int], BeforeValidator(split_commas)] = Field(default=[])
    subset: Count | None = None
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    skip_damaged: bool = False
    zca: bool = False
    augmentation: Families = "colour_crop_cutout_flip_scale_rotate"
