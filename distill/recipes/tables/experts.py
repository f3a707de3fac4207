"""The recipe's table [experts]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distill.recipes.key_types import (
    Compile,
    Count,
    FreshNetwork,
    NotNegative,
    Positive,
    Precision,
    Table,
)


class ExpertsTable(Table):
    """Networks trained on real data, recorded after every epoch."""

    network: FreshNetwork = "convnet3"
    count: Count = 10
    epochs: Count = 10
    batch_size: Count = 256
    lr: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sharpness_rho: NotNegative = 0.0
    sharpness_alpha: NotNegative = 0.3
    precision: Precision = "float32"
    compile: Compile = "auto"
    storage: Literal["float32", "float16", "bfloat16", "int4"] = "float32"
    keep: Literal["all", "window"] = "all"
