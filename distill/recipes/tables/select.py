"""The recipe's table [select]. Imports no torch."""

from __future__ import annotations

from typing import Literal

from typing_extensions import override

from distill.recipes.key_types import Count, MakerTable, SelectMethod, Share


class SelectTable(MakerTable):
    """Real images, or mosaics of them, as they are."""

    method: SelectMethod = "mosaics"
    features: Literal["pixels", "committee"] = "pixels"
    candidates: Count = 300
    crops: Count = 5
    factor: Count = 2
    crop_area: Share = 0.08

    @property
    @override
    def tiles(self) -> int:
        return self.factor if self.method == "mosaics" else 1
