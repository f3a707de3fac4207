"""The tables of a recipe and their keys. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from distill.by_ipc import at_ipc, ipc_of
from distill.committee_table import VOTE_KEYS as VOTE_KEYS
from distill.committee_table import CommitteeTable as CommitteeTable
from distill.errors import RecipeError
from distill.fitting import match_problem, recover_problem, select_problem
from distill.keys import (
    Count,
    Names,
    NotNegative,
    NotNegativeCount,
    Positive,
    Precision,
    Share,
    Table,
    split,
)
from distill.label_keys import LABEL_SOURCES as LABEL_SOURCES
from distill.label_keys import CodecText
from distill.label_keys import LabelSource as LabelSource
from distill.label_tables import EvaluateTable as EvaluateTable
from distill.label_tables import RelabelTable as RelabelTable


class DataTable(Table):
    """Which real images."""

    source: str
    size: Annotated[int, Field(ge=4)] | None = None
    channels: Literal[1, 3] | None = None
    classes: Annotated[list[str | int], BeforeValidator(split)] = Field(default=[])
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


class RecoverTable(Table):
    """Images optimised until a committee recognises them."""

    ipc: Count
    iterations: Count = 1000
    batches: Literal["across", "within"] = "across"
    batch_size: Count | None = None
    members: Annotated[Names, Field(min_length=1)] | None = None
    drawn: Count = 2
    schedule: Literal["random", "pairs", "fixed"] = "random"
    vote_temperature: Positive = 5.0
    init: Literal["mosaics", "real", "noise"] = "mosaics"
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


class SelectTable(Table):
    """Real images, or mosaics of them, as they are."""

    ipc: Count
    method: Literal["random", "herding", "k-center", "mosaics"] = "mosaics"
    features: Literal["pixels", "committee"] = "pixels"
    candidates: Count = 300
    crops: Count = 5
    factor: Count = 2
    crop_area: Share = 0.08


class RefineTable(Table):
    """Images moved to where a tower sees them the same after they lost their fine detail."""

    tower: str = "glyphclip"
    steps: Count = 10
    lr: Positive = 0.01
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    batch_size: Count = 128


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
    temperature: Positive = 1.0
    ce_weight: NotNegative = 0.1
    steps: Count = 500
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 0.002
    augmentation: str | None = None
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


class EncodeTable(Table):
    """Voted labels in fewer bytes; exactly one of the keys says which codec."""

    codec: CodecText | None = None
    target_bytes: Count | None = None
    max_loss: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> EncodeTable:
        given = [key for key, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"got {', '.join(given) or 'nothing'}; give one of codec, target_bytes, max_loss"
            )
        return self


class Recipe(Table):
    """A whole recipe. The stages whose table is missing are left out of the run."""

    name: str = "recipe"
    summary: str = ""
    origin: str = "Limbeck"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataTable
    experts: ExpertsTable | None = None
    match: MatchTable | None = None
    committee: CommitteeTable | None = None
    recover: RecoverTable | None = None
    select: SelectTable | None = None
    refine: RefineTable | None = None
    relabel: RelabelTable | None = None
    projector: ProjectorTable | None = None
    encode: EncodeTable | None = None
    evaluate: EvaluateTable | None = None

    @property
    def maker(self) -> MatchTable | RecoverTable | SelectTable:
        """The table that says how the set is made."""
        for table in (self.match, self.recover, self.select):
            if table is not None:
                return table
        raise RecipeError("the recipe makes no set; add [match], [recover] or [select]")

    def matching(self) -> tuple[ExpertsTable, MatchTable]:
        """[experts] and [match]; raises RecipeError where the set is made in another way."""
        if self.experts is None or self.match is None:
            raise RecipeError(
                "the recipe matches no trajectories; add the tables [experts] and [match]"
            )
        return self.experts, self.match

    @model_validator(mode="before")
    @classmethod
    def _choose_by_ipc(cls, raw: Any) -> Any:
        """Any key of [relabel] and [evaluate] may be a table of values by images per class."""
        ipc = ipc_of(raw, MAKERS)
        if ipc is None:
            return raw
        chosen = {
            name: {key: at_ipc(f"{name}.{key}", value, ipc) for key, value in raw[name].items()}
            for name in ("relabel", "evaluate")
            if isinstance(raw.get(name), dict)
        }
        return {**raw, **chosen}

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        made_by = [name for name in MAKERS if getattr(self, name) is not None]
        if len(made_by) != 1:
            found = ", ".join(f"[{name}]" for name in made_by) or "none of them"
            raise ValueError(
                f"a set is made by one of [match], [recover] and [select], but there is {found}"
            )
        if (self.experts is None) != (self.match is None):
            raise ValueError("[experts] and [match] go together; add or drop one of them")
        if self.data.zca and self.projector is not None:
            raise ValueError("a projector reads pixels: set data.zca = false or drop [projector]")
        if self.data.zca and self.refine is not None:
            raise ValueError("a tower reads pixels: set data.zca = false or drop [refine]")
        for table in _TAUGHT:
            if getattr(self, table) is not None and self.committee is None:
                raise ValueError(f"[{table}] needs teachers; add a [committee] table")
        problem = match_problem(self) or recover_problem(self) or select_problem(self)
        if problem:
            raise ValueError(problem)
        if self.encode is not None and self.relabel is None:
            raise ValueError("[encode] needs voted labels; add a [relabel] table")
        if self.encode is not None and self.encode.max_loss is not None and self.evaluate is None:
            raise ValueError("encode.max_loss needs students; add an [evaluate] table")
        return self


# The tables of which exactly one makes the set, and those that need a committee.
MAKERS = ("match", "recover", "select")
_TAUGHT = ("recover", "relabel", "projector")
TABLES: dict[str, type[Table]] = {
    "data": DataTable,
    "experts": ExpertsTable,
    "match": MatchTable,
    "committee": CommitteeTable,
    "recover": RecoverTable,
    "select": SelectTable,
    "refine": RefineTable,
    "relabel": RelabelTable,
    "projector": ProjectorTable,
    "encode": EncodeTable,
    "evaluate": EvaluateTable,
}
