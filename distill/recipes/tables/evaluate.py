"""The recipe's table [evaluate]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from distill.names import PROTOCOLS
from distill.recipes.key_types import (
    LABEL_SOURCES,
    BatchSize,
    Compile,
    Count,
    Families,
    FreshNetwork,
    LabelSource,
    Mixing,
    NotNegative,
    NotNegativeCount,
    Positive,
    Precision,
    Protocol,
    Share,
    Table,
    split_commas,
)

# Keys that say which students are trained, and decide nothing in any of them.
SELECTING = ("students", "seeds", "labels", "whole_seeds", "equal_bytes", "scores")


class EvaluateTable(Table):
    """Fresh students, and the controls beside them."""

    students: Annotated[list[FreshNetwork], BeforeValidator(split_commas), Field(min_length=1)]
    seeds: Count = 3
    labels: Annotated[
        list[LabelSource],
        BeforeValidator(split_commas),
        Field(min_length=1),
    ] = Field(default=list(LABEL_SOURCES))
    epochs: Count = 300
    lr: Positive = 0.01
    soft_epochs: Count | None = None
    schedule: Literal["cosine", "step"] = "cosine"
    soft_optimizer: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    soft_lr: Positive = 0.002
    soft_weight_decay: NotNegative = 0.01
    soft_eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    soft_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    whole_epochs: Count = 20
    whole_seeds: NotNegativeCount | None = None
    batch_size: BatchSize | Literal["auto"] = 100
    protocol: Protocol = "auto"
    temperature: Positive | None = None
    views: Families | None = None
    mix: Mixing = "none"
    hard_weight: Annotated[float, Field(ge=0, lt=1)] = 0.0
    optimizers: Annotated[
        list[Literal["sgd", "adam", "adamw", "muon", "trajectory"]], BeforeValidator(split_commas)
    ] = Field(default=[])
    lr_factors: Annotated[list[Positive], BeforeValidator(split_commas)] = Field(default=[])
    mixes: Annotated[list[Mixing], BeforeValidator(split_commas)] = Field(default=[])
    temperatures: Annotated[list[Positive], BeforeValidator(split_commas)] = Field(default=[])
    hard_weights: Annotated[
        list[Annotated[float, Field(ge=0, lt=1)]], BeforeValidator(split_commas)
    ] = Field(default=[])
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

    @model_validator(mode="before")
    @classmethod
    def _as_prescribed(cls, raw: Any) -> Any:
        """Keys that are not written beside a protocol of the literature have its values."""
        if not isinstance(raw, dict) or raw.get("protocol") not in list(PROTOCOLS):
            return raw
        return {**PROTOCOLS[raw["protocol"]].sets, **raw}

    @model_validator(mode="after")
    def _draws_views_anew(self) -> EvaluateTable:
        """Views of the students' own have no stored labels."""
        if self.views is None and (self.mix != "none" or self.mixes):
            key = "mixes" if self.mixes else "mix"
            raise ValueError(
                f"evaluate.{key} mixes the views of evaluate.views; set views, or leave out {key}"
            )
        changed = [name for name in ("gift", "hard_share", "self_mix") if getattr(self, name)]
        if self.views is not None and changed:
            raise ValueError(
                f"evaluate.{changed[0]} changes stored labels, but evaluate.views draws views that "
                "have none; leave out either"
            )
        return self

    @model_validator(mode="after")
    def _mixes_soft_labels(self) -> EvaluateTable:
        if self.self_mix and self.hard_share:
            raise ValueError("evaluate.self_mix mixes soft labels; leave out hard_share, or it")
        return self

    @model_validator(mode="after")
    def _mixes_labels_once(self) -> EvaluateTable:
        """Two rules that both mix the class into labels, or change them by epochs, would add up."""
        weights = [name for name in ("hard_weight", "hard_weights") if getattr(self, name)]
        others = [name for name in ("gift", "hard_share", "self_mix") if getattr(self, name)]
        if weights and others:
            raise ValueError(
                f"evaluate.{weights[0]} and evaluate.{others[0]} both change labels; leave out "
                "either"
            )
        return self

    @model_validator(mode="after")
    def _reads_labels_as_stored(self) -> EvaluateTable:
        """Changed labels are made for one temperature, at which students must then read them."""
        changed = [
            name
            for name in ("gift", "hard_share", "self_mix", "hard_weight", "hard_weights")
            if getattr(self, name)
        ]
        moving = [
            name for name in ("anneal", "calibrated") if getattr(self, name) not in (False, "none")
        ]
        if changed and moving:
            raise ValueError(
                f"evaluate.{moving[0]} moves temperatures, but evaluate.{changed[0]} makes labels "
                "for one; leave out either"
            )
        return self
