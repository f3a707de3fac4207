"""The recipe's table [evaluate]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from distill.recipes.key_types import (
    BatchSize,
    Compile,
    Count,
    FreshNetwork,
    LabelSource,
    NotNegative,
    NotNegativeCount,
    Positive,
    Precision,
    Share,
    Table,
    split_commas,
)


class EvaluateTable(Table):
    """Fresh students, and the controls beside them."""

    students: Annotated[list[FreshNetwork], BeforeValidator(split_commas), Field(min_length=1)]
    seeds: Count = 3
    labels: Annotated[
        list[LabelSource],
        BeforeValidator(split_commas),
        Field(min_length=1),
    ] = Field(default=["hard", "learned", "votes", "projector"])
    epochs: Count = 300
    lr: Positive = 0.01
    soft_epochs: Count | None = None
    soft_optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    soft_lr: Positive = 0.002
    soft_weight_decay: NotNegative = 0.01
    soft_eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    soft_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    whole_epochs: Count = 20
    whole_seeds: NotNegativeCount | None = None
    batch_size: BatchSize = 100
    protocol: Literal["auto", "trajectory", "kd", "hard"] = "auto"
    lr_factors: Annotated[list[Positive], BeforeValidator(split_commas)] = Field(default=[])
    equal_bytes: bool = False
    scores: bool = False
    gift: Annotated[float, Field(ge=0, lt=1)] = 0.0
    hard_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    hard_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.8
    self_mix: bool = False
    discriminator: NotNegative = 0.0
    anneal: Literal["none", "step", "cosine"] = "none"
    anneal_every: Count = 30
    anneal_factor: Share = 0.7
    anneal_least: Positive = 1.0
    calibrated: bool = False
    precision: Precision = "float32"
    compile: Compile = "auto"

    @property
    def view_epochs(self) -> int:
        """Epochs of students with soft labels of views."""
        return self.soft_epochs or self.epochs

    @model_validator(mode="after")
    def _mixes_soft_labels(self) -> EvaluateTable:
        if self.self_mix and self.hard_share:
            raise ValueError("evaluate.self_mix mixes soft labels; leave out hard_share, or it")
        return self

    @model_validator(mode="after")
    def _reads_labels_as_stored(self) -> EvaluateTable:
        """Changed labels are made for one temperature, at which students must then read them."""
        changed = [name for name in ("gift", "hard_share", "self_mix") if getattr(self, name)]
        moving = [
            name for name in ("anneal", "calibrated") if getattr(self, name) not in (False, "none")
        ]
        if changed and moving:
            raise ValueError(
                f"evaluate.{moving[0]} moves temperatures, but evaluate.{changed[0]} makes labels "
                "for one; leave out either"
            )
        return self
