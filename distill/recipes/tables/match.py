"""The recipe's table [match]. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from distill.recipes.keys import (
    Compile,
    Count,
    Gradient,
    MakerTable,
    MatchImages,
    MatchLabels,
    NotNegative,
    NotNegativeCount,
    Positive,
)


class MatchTable(MakerTable):
    """Trajectory matching."""

    renamed: ClassVar[Mapping[str, str]] = {"lr": "student_lr", "log_lr_lr": "student_lr_lr"}

    iterations: Count = 1000
    gradient: Gradient = "adjoint"
    compile: Compile = "auto"
    snapshots: Literal["all", "sqrt", "offload"] = "all"
    inner_steps: Count = 20
    batch_size: Count | None = None
    span: Count = 2
    min_start_epoch: NotNegativeCount = 0
    max_start_epoch: NotNegativeCount = 2
    grow_from: NotNegativeCount | None = None
    grow_steps: NotNegativeCount = 0
    segments: Count = 1
    init: MatchImages = "real"
    factor: Count = 1
    labels: Literal["learned", "fixed", "target"] = "learned"
    label_init: MatchLabels = "class"
    label_lead: Positive = 4.0
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    student_lr: Positive = 0.02
    image_lr: Positive = 0.03
    label_lr: NotNegative = 0.05
    student_lr_lr: NotNegative = 0.02
    image_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    threshold: Positive = 1.2
    patience: Count = 10
    checkpoint_every: Count = 50

    @property
    def compiled(self) -> bool:
        """Whether inner steps are compiled, once `compile` is resolved."""
        return self.compile == "on"

    @property
    @override
    def tiles(self) -> int:
        return self.factor
