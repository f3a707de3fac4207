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
    aim: Literal["statistics", "groups", "anchors", "directions"] = "statistics"
    blends: NotNegativeCount = 0
    blend_kept: Annotated[float, Field(ge=0, lt=1)] = 0.5
    patches: Literal["starts", "nearest"] = "starts"
    patch_complexity: Annotated[float, Field(ge=0, le=1)] = 0.1
    precision: Precision = "float32"
    checkpoint_every: Count = 200

    @property
    @override
    def tiles(self) -> int:
        return self.factor if self.init == "mosaics" or self.reads_anchors else 1

    @property
    def reads_groups(self) -> bool:
        """Whether real images are grouped by difficulty."""
        return self.aim == "groups" or self.init == "groups"

    @property
    def reads_norms(self) -> bool:
        """Whether the statistics of BatchNorm layers are compared."""
        by_norms = self.aim in ("statistics", "groups") and self.bn_weight > 0
        return by_norms or self.reads_groups

    @property
    def reads_anchors(self) -> bool:
        """Whether each image stands for real ones."""
        return self.aim == "anchors" or self.init == "anchors"

    @property
    @override
    def real_per_class(self) -> int:
        plain = self.init == "noise" and not self.reads_groups and not self.reads_anchors
        return 1 if plain else super().real_per_class
