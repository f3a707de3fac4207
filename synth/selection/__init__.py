"""Selection: real images, or mosaics of them, as the synthetic set."""

from synth.selection.coresets import Features, Pixels, choose_per_class, herding, k_center
from synth.selection.mosaics import (
    MosaicDraw,
    MosaicSettings,
    draw_mosaics,
    make_mosaics,
    realism_loss,
)

__all__ = [
    "Features",
    "MosaicDraw",
    "MosaicSettings",
    "Pixels",
    "choose_per_class",
    "draw_mosaics",
    "herding",
    "k_center",
    "make_mosaics",
    "realism_loss",
]
