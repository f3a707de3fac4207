"""The recipe's table [recover]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from distill.recipes.key_types import (
    Count,
    MakerTable,
    NameList,
    NotNegative,
    NotNegativeCount,
    Positive,
    Precision,
    RecoverStart,
    Schedule,
    Share,
    Temperature,
)


class RecoverTable(MakerTable):
    """Images optimised until a committee recognises them."""

    iterations: Count = 1000
    batches: Literal["across", "within"] = "across"
    batch_size: Count | None = None
    members: Annotated[NameList, Field(min_length=1)] | None = None
    drawn: Count = 2
    schedule: Schedule = "random"
    vote_temperature: Temperature = 5.0
    init: RecoverStart = "mosaics"
    candidates: Count = 300
    crops: Count = 5
    factor: Count = 1
    crop_area: Share = 0.08
    bn_weight: NotNegative = 0.01
    first_bn: NotNegative = 10.0
    lr: Positive = 0.25
    view_area: Share = 0.08
    flip: bool = True
    roll: NotNegativeCount = 4
    background: Literal["free", "kept"] = "free"
    precision: Precision = "float32"
    checkpoint_every: Count = 200

    @property
    @override
    def tiles(self) -> int:
        return self.factor if self.init == "mosaics" else 1

    @property
    @override
    def real_per_class(self) -> int:
        return 1 if self.init == "noise" else super().real_per_class
