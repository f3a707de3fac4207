"""The recipe's table [select]. Imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator
from typing_extensions import override

from distill.recipes.key_types import CodingText, Count, MakerTable, SelectMethod, Share
from distill.recipes.tables.match import PIXELS, is_coded


class SelectTable(MakerTable):
    """Real images, or mosaics of them, as they are or as a coding keeps them."""

    # What each stored image decodes to, and whether the set holds label logits; see MatchTable.
    formed: ClassVar[int] = 1
    keeps_labels: ClassVar[bool] = False

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

    @model_validator(mode="after")
    def _codes_within_a_budget(self) -> SelectTable:
        if self.budget_bytes is not None and not self.coded:
            raise ValueError(
                "select.budget_bytes is filled with coded images; name a coding as select.images, "
                "such as rounded:depth=2"
            )
        return self

    @property
    def coded(self) -> bool:
        """Whether a coding keeps the images, and not the pixels themselves."""
        return is_coded(self.images)

    @property
    @override
    def tiles(self) -> int:
        return self.factor if self.method == "mosaics" else 1
