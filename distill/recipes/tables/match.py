"""The recipe's table [match]. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import override

from distill.recipes.key_types import (
    CodingText,
    Compile,
    Count,
    Gradient,
    MakerTable,
    MatchImages,
    MatchLabels,
    NotNegative,
    NotNegativeCount,
    Positive,
    split_commas,
)

# What a search within a budget may choose.
Searched = Literal["images", "ipc", "factor"]

PIXELS = "pixels"


def is_coded(images: str) -> bool:
    """Whether a spec of how images are kept names a coding, and not the pixels themselves."""
    return images.partition(":")[0] != PIXELS


# Values of `labels` for which teachers label the views of every inner step.
TAUGHT = ("votes", "projector")


class MatchTable(MakerTable):
    """Trajectory matching."""

    searchable: ClassVar[tuple[str, ...]] = get_args(Searched)
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
    objective: Literal["parameters", "features", "both"] = "parameters"
    real_batch: Count = 128
    feature_weight: Positive = 0.1
    later_weight: NotNegative = 1.0
    init: MatchImages = "real"
    factor: Count = 1
    images: CodingText = PIXELS
    budget_bytes: Count | None = None
    search: Annotated[list[Searched], BeforeValidator(split_commas)] = Field(default=[])
    labels: Literal["learned", "fixed", "target", "votes", "projector"] = "learned"
    label_temperature: Positive | None = None
    class_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_init: MatchLabels = "class"
    label_lead: Positive = 4.0
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    student_lr: Positive | Literal["auto"] = 0.02
    image_lr: Positive = 0.03
    label_lr: NotNegative = 0.05
    student_lr_lr: NotNegative = 0.02
    image_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    threshold: Positive = 1.2
    patience: Count = 10
    checkpoint_every: Count = 50

    @model_validator(mode="before")
    @classmethod
    def _hard_labels_by_default(cls, raw: Any) -> Any:
        """Within a budget hard ones cost next to nothing; features alone say nothing of labels."""
        if not isinstance(raw, dict) or "labels" in raw:
            return raw
        if raw.get("budget_bytes") is None and raw.get("objective") != "features":
            return raw
        return {"label_init": "hard", **raw, "labels": "fixed"}

    @model_validator(mode="before")
    @classmethod
    def _hard_labels_under_teachers(cls, raw: Any) -> Any:
        """Where teachers label the views, the set's own labels are its classes."""
        if not isinstance(raw, dict) or raw.get("labels") not in TAUGHT:
            return raw
        return {"label_init": "hard", **raw}

    @model_validator(mode="after")
    def _labels_views(self) -> MatchTable:
        if self.taught and self.label_init != "hard":
            raise ValueError(
                f'match.labels = "{self.labels}" labels views and starts from no other labels; '
                "leave out match.label_init"
            )
        if not self.taught and (self.class_share or self.label_temperature is not None):
            key = "class_share" if self.class_share else "label_temperature"
            raise ValueError(
                f'match.{key} is of labels that teachers give; set match.labels = "votes" or '
                f'"projector", or leave out {key}'
            )
        return self

    @model_validator(mode="after")
    def _labels_of_features(self) -> MatchTable:
        if not self.matches_parameters and self.labels == "learned":
            raise ValueError(
                'match.objective = "features" learns no labels; set match.labels = "fixed", or '
                'match.objective = "both"'
            )
        if not self.matches_parameters and self.taught and not self.later_weight:
            raise ValueError(
                f'match.labels = "{self.labels}" label views for the cross-entropy, but '
                "match.later_weight is 0, and the features alone have none; give it a weight"
            )
        if self.reads_features and self.later_weight and self.labels == "target":
            raise ValueError(
                'match.labels = "target" are those of the later snapshot itself, whose '
                "cross-entropy then says nothing; set match.later_weight = 0 or other labels"
            )
        return self

    @model_validator(mode="after")
    def _searches_within_a_budget(self) -> MatchTable:
        if self.search and self.budget_bytes is None:
            raise ValueError("match.search chooses within a budget; set match.budget_bytes")
        return self

    @property
    def coded(self) -> bool:
        """Whether the parameters of a coding are learned, and not the pixels themselves."""
        return is_coded(self.images)

    @property
    def matches_parameters(self) -> bool:
        """Whether the parameter distance after an inner loop is part of what is descended."""
        return self.objective != "features"

    @property
    def reads_features(self) -> bool:
        """Whether the features of real images are part of what is descended."""
        return self.objective != "parameters"

    @property
    def taught(self) -> bool:
        """Whether teachers label the views of inner steps, and the set's own labels are unused."""
        return self.labels in TAUGHT

    @property
    def keeps_labels(self) -> bool:
        """Whether the set holds label logits: not where teachers give them, or a budget pays none.

        Within a budget, fixed labels are the classes.
        """
        return not self.taught and (self.budget_bytes is None or self.labels != "fixed")

    @property
    def label_bytes(self) -> int | None:
        """Bytes that label logits may take; None for float32."""
        return None

    @property
    def compiled(self) -> bool:
        """Whether inner steps are compiled, once `compile` is resolved."""
        return self.compile == "on" and self.matches_parameters

    @property
    def formed(self) -> int:
        """n: each stored image decodes to n^2 images."""
        return self.factor

    @property
    @override
    def tiles(self) -> int:
        return self.factor
