"""The recipe's table [experts]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from distill.recipes.key_types import (
    Compile,
    Count,
    FreshNetwork,
    NotNegative,
    Positive,
    Precision,
    Table,
    split_commas,
)


class ExpertsTable(Table):
    """Networks trained on real data, recorded after every epoch."""

    network: FreshNetwork = "convnet3"
    networks: Annotated[list[FreshNetwork], BeforeValidator(split_commas)] = Field(default=[])
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

    @model_validator(mode="before")
    @classmethod
    def _first_of_several(cls, raw: Any) -> Any:
        """Of several networks the first is the set's own."""
        if not isinstance(raw, dict) or not raw.get("networks"):
            return raw
        networks = split_commas(raw["networks"])
        if raw.get("network", networks[0]) != networks[0]:
            raise ValueError(
                f"experts.network is {raw['network']}, experts.networks are "
                f"{', '.join(networks)}; set one of the two"
            )
        return {**raw, "network": networks[0]}

    @property
    def all_networks(self) -> list[str]:
        """The specs of the networks whose experts are matched in turn."""
        return self.networks or [self.network]
