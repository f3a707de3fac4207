"""The recipe's table [select]. Imports no torch."""

from __future__ import annotations

from typing import Literal

from distill.recipes.keys import Count, SelectMethod, Share, Table


class SelectTable(Table):
    """Real images, or mosaics of them, as they are."""

    ipc: Count
    method: SelectMethod = "mosaics"
    features: Literal["pixels", "committee"] = "pixels"
    candidates: Count = 300
    crops: Count = 5
    factor: Count = 2
    crop_area: Share = 0.08
