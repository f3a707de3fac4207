"""Selection: real images, or mosaics of them, as the synthetic set."""

from synth.selection.coresets import Features, Pixels, choose_per_class, herding, k_center
from synth.selection.difficulty import Difficulty, by_difficulty, el2n, forgetting_counts
from synth.selection.label_errors import LabelErrors, confident_errors
from synth.selection.mosaics import (
    MosaicDraw,
    MosaicSettings,
    draw_mosaics,
    make_mosaics,
    realism_loss,
)

__all__ = [
    "Difficulty",
    "Features",
    "LabelErrors",
    "MosaicDraw",
    "MosaicSettings",
    "Pixels",
    "by_difficulty",
    "choose_per_class",
    "confident_errors",
    "draw_mosaics",
    "el2n",
    "forgetting_counts",
    "herding",
    "k_center",
    "make_mosaics",
    "realism_loss",
]
