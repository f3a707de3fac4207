"""The recipe's table [relabel]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from distill.recipes.key_types import (
    Aggregate,
    BatchSize,
    Count,
    Families,
    FreshNetwork,
    Mixing,
    Share,
    Table,
    Temperature,
    split_commas,
)


class RelabelTable(Table):
    """A voted soft label for every augmented view of every synthetic image."""

    epochs: Count = 300
    batch_size: BatchSize = 100
    parts: Count = 1
    mix: Mixing = "none"
    views: Literal["stored", "seed"] = "stored"
    bssl: Literal["auto", "on", "off"] = "auto"
    temperature: Temperature = 4.0
    augmentation: Families = "crop_scale_rotate"
    aggregate: Annotated[list[Aggregate], BeforeValidator(split_commas), Field(min_length=1)] = (
        Field(default=["logits"])
    )
    zones: Literal["none", "ferkd"] = "none"
    active: Literal["none", "robust", "random"] = "none"
    budget: Share = 0.5
    unasked: Literal["reuse", "hard"] = "reuse"
    active_student: FreshNetwork = "convnet3:width=32"
    active_epochs: Count = 30

    @model_validator(mode="after")
    def _aggregates_one_kind(self) -> RelabelTable:
        if len(self.aggregate) > 1 and {"logits", "probabilities"} & set(self.aggregate):
            raise ValueError(
                "relabel.aggregate: only crowd methods can be averaged; give logits or "
                "probabilities alone"
            )
        return self

    @model_validator(mode="after")
    def _stores_all_families(self) -> RelabelTable:
        if "|" in self.augmentation:
            raise ValueError(
                f"relabel.augmentation is {self.augmentation}, one family for each batch, but "
                "labelled views are kept with the parameters of all; join them with underscores, "
                "or let students draw views of their own (evaluate.views) under labels that a "
                "network gives"
            )
        return self

    @model_validator(mode="after")
    def _needs_plain_views(self) -> RelabelTable:
        """A rule that moves labels between views needs views that stand alone and are stored."""
        moved = {
            "zones = ferkd": self.zones != "none",
            f"active = {self.active}": self.active != "none",
        }
        stored = self.zones != "none" or (self.active != "none" and self.unasked == "reuse")
        for name in (name for name, there in moved.items() if there):
            if self.mix != "none":
                raise ValueError(f"relabel.{name} labels views by themselves; set mix = none")
            if stored and self.views != "stored":
                raise ValueError(f"relabel.{name} changes which views there are; store them")
        return self
