"""The recipe's table [projector]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.recipes.key_types import (
    Count,
    Families,
    NotNegative,
    NotNegativeCount,
    Positive,
    Table,
    Temperature,
)


class ProjectorTable(Table):
    """An image -> label model that replaces the stored labels."""

    tower: str = "glyphclip"
    rank: NotNegativeCount = 8
    ranks: dict[Literal["attention", "mlp", "conv", "head"], NotNegativeCount] = Field(default={})
    alpha: Count = 16
    head: Literal["text", "random"] = "text"
    trained: Literal["all", "low-rank", "scale", "nothing"] = "all"
    templates: Annotated[list[str], Field(min_length=1)] = Field(default=["a photo of a {}"])
    teacher: str = "committee"
    loss: Literal["mse", "kl"] = "mse"
    temperature: Temperature = 1.0
    ce_weight: NotNegative = 0.1
    steps: Count = 500
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 0.002
    augmentation: Families | None = None
    stop_on: Literal["kl", "agreement", "accuracy"] = "kl"
    check_every: Count = 50
    patience: NotNegativeCount = 0
    storage: Literal["float32", "int8", "int4"] = "float32"
    coder: Literal["zstandard", "constriction"] = "zstandard"

    @model_validator(mode="after")
    def _fits_together(self) -> ProjectorTable:
        if "head" in self.ranks and (self.trained != "low-rank" or not self.ranks["head"]):
            raise ValueError(
                'ranks.head is the rank of a head with trained = "low-rank", at least 1; set that, '
                "or drop ranks.head"
            )
        return self

    @property
    def head_rank(self) -> int:
        """The rank of a low-rank head."""
        return self.ranks.get("head", max(self.rank, 1))
