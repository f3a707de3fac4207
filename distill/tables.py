"""The tables of a recipe and their keys. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


Names = Annotated[list[str], BeforeValidator(_split)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]
LabelSource = Literal["hard", "learned", "votes", "projector"]


class Table(BaseModel):
    """A table of a recipe: unknown keys are errors, and values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataTable(Table):
    """Which real images."""

    source: str
    size: Annotated[int, Field(ge=4)] | None = None
    channels: Literal[1, 3] | None = None
    subset: Count | None = None
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    zca: bool = False
    augmentation: str = "colour_crop_cutout_flip_scale_rotate"


class ExpertsTable(Table):
    """Networks trained on real data, recorded after every epoch."""

    network: str = "convnet3"
    count: Count = 10
    epochs: Count = 10
    batch_size: Count = 256
    lr: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sharpness_rho: NotNegative = 0.0
    sharpness_alpha: NotNegative = 0.3
    storage: Literal["float32", "float16", "bfloat16", "int4"] = "float32"
    keep: Literal["all", "window"] = "all"


class MatchTable(Table):
    """Trajectory matching."""

    ipc: Count
    iterations: Count = 1000
    gradient: Literal["adjoint", "frozen", "unrolled"] = "adjoint"
    snapshots: Literal["all", "sqrt", "offload"] = "all"
    inner_steps: Count = 20
    batch_size: Count | None = None
    span: Count = 2
    min_start_epoch: NotNegativeCount = 0
    max_start_epoch: NotNegativeCount = 2
    grow_from: NotNegativeCount | None = None
    grow_steps: NotNegativeCount = 0
    segments: Count = 1
    init: Literal["real", "correct", "random", "noise"] = "real"
    factor: Count = 1
    labels: Literal["learned", "fixed", "target"] = "learned"
    label_init: Literal["hard", "class", "experts"] = "class"
    label_lead: Positive = 4.0
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    lr: Positive = 0.02
    image_lr: Positive = 0.03
    label_lr: NotNegative = 0.05
    log_lr_lr: NotNegative = 0.02
    image_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    threshold: Positive = 1.2
    patience: Count = 10
    checkpoint_every: Count = 50


class CommitteeTable(Table):
    """Teachers that vote the soft labels."""

    members: Annotated[Names, Field(min_length=1)]
    vote: Literal["prior", "equal"] = "prior"
    vote_temperature: Positive = 10.0
    epochs: Count = 20
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 0.002
    weight_decay: NotNegative = 0.01
    augmentation: str = "crop_scale_rotate"


class RelabelTable(Table):
    """A voted soft label for every augmented view of every synthetic image."""

    epochs: Count = 300
    batch_size: Annotated[int, Field(ge=2)] = 100
    bssl: Literal["auto", "on", "off"] = "auto"
    temperature: Positive = 4.0
    augmentation: str = "crop_scale_rotate"


class ProjectorTable(Table):
    """An image -> label model that replaces the stored labels."""

    tower: str = "config:tiny-vit"
    rank: Count = 8
    alpha: Count = 16
    head: Literal["text", "random"] = "text"
    trained: Literal["all", "scale", "nothing"] = "all"
    templates: Annotated[list[str], Field(min_length=1)] = ["a photo of a {}"]
    teacher: str = "committee"
    loss: Literal["mse", "kl"] = "mse"
    temperature: Positive = 1.0
    ce_weight: NotNegative = 0.1
    steps: Count = 500
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 0.002
    augmentation: str = "crop_scale_rotate"


class EvaluateTable(Table):
    """Fresh students, and the controls beside them."""

    students: Annotated[Names, Field(min_length=1)]
    seeds: Count = 3
    labels: Annotated[
        list[LabelSource],
        BeforeValidator(_split),
        Field(min_length=1),
    ] = ["hard", "learned", "votes", "projector"]
    epochs: Count = 300
    lr: Positive = 0.01
    soft_lr: Positive = 0.002
    whole_epochs: Count = 20
    batch_size: Annotated[int, Field(ge=2)] = 100


class Recipe(Table):
    """A whole recipe. The stages whose table is missing are left out of the run."""

    name: str = "recipe"
    summary: str = ""
    origin: str = "Limbeck"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataTable
    experts: ExpertsTable
    match: MatchTable
    committee: CommitteeTable | None = None
    relabel: RelabelTable | None = None
    projector: ProjectorTable | None = None
    evaluate: EvaluateTable | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        needed = self.match.max_start_epoch + self.match.span
        if needed > self.experts.epochs:
            raise ValueError(
                f"match.max_start_epoch + match.span is {needed}, but experts.epochs is "
                f"{self.experts.epochs}; lower the former or record more epochs"
            )
        grown = self.match.max_start_epoch if self.match.grow_from is None else self.match.grow_from
        if not self.match.min_start_epoch <= grown <= self.match.max_start_epoch:
            raise ValueError(
                "match.min_start_epoch, grow_from and max_start_epoch must not fall in this order"
            )
        if self.data.zca and self.projector is not None:
            raise ValueError("a projector reads pixels: set data.zca = false or drop [projector]")
        for table, value in (("relabel", self.relabel), ("projector", self.projector)):
            if value is not None and self.committee is None:
                raise ValueError(f"[{table}] needs teachers; add a [committee] table")
        return self


TABLES: dict[str, type[Table]] = {
    "data": DataTable,
    "experts": ExpertsTable,
    "match": MatchTable,
    "committee": CommitteeTable,
    "relabel": RelabelTable,
    "projector": ProjectorTable,
    "evaluate": EvaluateTable,
}
