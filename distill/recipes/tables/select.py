"""The recipe's table [select]. Imports no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import override

from distill.recipes.key_types import (
    CodingText,
    Count,
    MakerTable,
    Positive,
    SelectMethod,
    Share,
    split_commas,
)
from distill.recipes.tables.match import PIXELS, is_coded

# What a search within a budget may choose; of what it leaves, as many images as fit are taken.
Searched = Literal["images"]


class SelectTable(MakerTable):
    """Real images, or mosaics of them, as they are or as a coding keeps them."""

    searchable: ClassVar[tuple[str, ...]] = get_args(Searched)
    # What each stored image decodes to; see MatchTable.
    formed: ClassVar[int] = 1

    method: SelectMethod = "mosaics"
    features: Literal["pixels", "committee"] = "pixels"
    difficulty: Literal["easy", "middle", "hard", "spread"] = "easy"
    scored_epoch: Count = 2
    candidates: Count = 300
    crops: Count = 5
    factor: Count = 2
    crop_area: Share = 0.08
    images: CodingText = PIXELS
    budget_bytes: Count | None = None
    search: Annotated[list[Searched], BeforeValidator(split_commas)] = Field(default=[])
    labels: Literal["hard", "votes"] = "hard"
    label_temperature: Positive = 1.0
    label_share: Share = 0.05

    @model_validator(mode="after")
    def _codes_within_a_budget(self) -> SelectTable:
        if self.search and self.budget_bytes is None:
            raise ValueError("select.search chooses within a budget; set select.budget_bytes")
        if self.budget_bytes is not None and not self.coded and not self.search:
            raise ValueError(
                "select.budget_bytes is filled with coded images; name a coding as select.images, "
                'such as rounded:depth=2, or set select.search = ["images"]'
            )
        return self

    @model_validator(mode="after")
    def _votes_on_whole_images(self) -> SelectTable:
        if self.labels == "votes" and self.method == "mosaics":
            raise ValueError(
                'select.labels = "votes" asks the committee about real images before they are '
                'coded; mosaics are of parts: set another select.method, or labels = "hard"'
            )
        return self

    @property
    def coded(self) -> bool:
        """Whether a coding keeps the images, and not the pixels themselves."""
        return is_coded(self.images)

    @property
    def keeps_labels(self) -> bool:
        """Whether the set holds label logits."""
        return self.labels == "votes"

    @property
    def label_bytes(self) -> int | None:
        """Bytes that label logits may take; None for float32."""
        if self.budget_bytes is None:
            return None
        return int(self.budget_bytes * self.label_share)

    @property
    @override
    def tiles(self) -> int:
        return self.factor if self.method == "mosaics" else 1

    @property
    @override
    def real_per_class(self) -> int:
        # Within a budget `ipc` is the most that are taken, of as many as there are.
        return 1 if self.budget_bytes is not None else super().real_per_class
