"""The table [committee]: how members are trained, and how they are weighed. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from distill.recipes.key_types import (
    BatchSize,
    Compile,
    Count,
    Families,
    FreshNetwork,
    NameList,
    NotNegative,
    Positive,
    Precision,
    Share,
    Table,
    Temperature,
    Vote,
)

# What files of weights end in.
_FILES = (".pt", ".pth", ".safetensors")


class TrainingTable(Table):
    """How a member of the committee is trained."""

    epochs: Count = 20
    batch_size: BatchSize = 64
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 0.002
    weight_decay: NotNegative = 0.01
    augmentation: Families = "crop_scale_rotate"
    patience: Count | None = None
    weights: str | None = None
    mean: Annotated[list[float], Field(min_length=1)] | None = None
    std: Annotated[list[Positive], Field(min_length=1)] | None = None
    precision: Precision = "float32"
    weight_bits: Annotated[int, Field(ge=2, le=8)] | None = None

    @model_validator(mode="after")
    def _rounds_what_it_trains(self) -> TrainingTable:
        if self.weight_bits is None:
            return self
        if self.epochs < 2 or self.patience is not None or self.weights is not None:
            raise ValueError(
                "weight_bits rounds the weights in the second half of the epochs: it needs at "
                "least 2 epochs, and neither patience nor weights that are there already"
            )
        return self

    @model_validator(mode="after")
    def _normalises_its_weights(self) -> TrainingTable:
        mean, std = self.mean, self.std
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()):
            raise ValueError(
                "mean and std go together: give one of each for every channel, or one for all"
            )
        if mean is not None and self.weights is None:
            raise ValueError(
                "mean and std say how the images were normalised that a member's weights were "
                "trained on; give weights too, or leave them out"
            )
        return self


class CommitteeTable(TrainingTable):
    """Teachers that vote the soft labels; `recipes` trains single members in another way."""

    members: Annotated[NameList, Field(min_length=1)]
    budget_share: Share | None = None
    recipes: dict[str, TrainingTable] = Field(default={})
    compile: Compile = "auto"
    vote: Vote = "prior"
    vote_temperature: Temperature = 10.0
    priors: list[Annotated[float, Field(ge=0, le=100)]] | None = None
    measure_student: FreshNetwork = "convnet3:width=32"
    measure_ipc: Count = 10
    measure_epochs: Count = 30
    measure_seeds: Count = 1
    similarity_power: NotNegative | Literal["nearest"] = 1.0
    similarity_images: Annotated[int, Field(ge=10)] = 500

    def training(self, spec: str) -> TrainingTable:
        """How a member is trained: by its own recipe, or by the keys of [committee]."""
        return self.recipes.get(spec, self)

    @model_validator(mode="before")
    @classmethod
    def _complete_recipes(cls, raw: Any) -> Any:
        """A member's recipe takes the keys that it leaves out from [committee]."""
        recipes = raw.get("recipes") if isinstance(raw, dict) else None
        if not isinstance(recipes, dict):
            return raw
        common = {key: raw[key] for key in TrainingTable.model_fields if key in raw}
        completed = {
            spec: {**common, **own} if isinstance(own, dict) else own
            for spec, own in recipes.items()
        }
        return {**raw, "recipes": completed}

    @model_validator(mode="after")
    def _starts_from_published_weights(self) -> CommitteeTable:
        for spec in self.members:
            if spec.endswith(_FILES):
                raise ValueError(
                    f"committee.members has {spec}, a file of weights, where networks are needed; "
                    f'write the network, such as torchvision:resnet18, and weights = "{spec}" in '
                    "its table of committee.recipes"
                )
            own = self.training(spec)
            if spec.startswith("torchvision:") and own.mean is not None:
                raise ValueError(
                    f"{spec} takes images as its published weights do; leave out mean and std"
                )
            if self.weights is not None and spec not in self.recipes and len(self.members) > 1:
                raise ValueError(
                    f"weights would be read for all {len(self.members)} members; write them into "
                    "the table of committee.recipes of the member that they belong to"
                )
        return self

    @model_validator(mode="after")
    def _fits_its_members(self) -> CommitteeTable:
        unknown = [spec for spec in self.recipes if spec not in self.members]
        if unknown:
            raise ValueError(
                f"recipes names {unknown[0]}, which is no member; write a recipe for one of "
                f"{', '.join(self.members)}"
            )
        if self.priors is None:
            return self
        if self.vote != "prior":
            raise ValueError(f"priors are read by vote = prior, not {self.vote}; leave them out")
        if len(self.priors) != len(self.members):
            raise ValueError(
                f"got {len(self.priors)} priors for {len(self.members)} members; write one "
                "percentage for each, in their order"
            )
        return self


# Keys that weigh trained members: changing them trains no member again.
VOTE_KEYS = tuple(
    name
    for name in CommitteeTable.model_fields
    if name not in ("members", "recipes", *TrainingTable.model_fields)
)
