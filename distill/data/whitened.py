"""ZCA whitening as a preprocessing of pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill.data.normalisation import Preprocess
from synth.images import Images
from synth.whitening import Whitening, fit_whitening

_BATCH = 2000


@dataclass(frozen=True)
class ZCAPreprocess:
    """Pixels in [0, 1] -> whitened images, and back; see `synth.whitening`."""

    whitening: Whitening

    def __call__(self, pixels: Tensor) -> Tensor:
        """Whiten pixels [n, c, h, w]."""
        return self.whitening.to(pixels.device).apply(pixels)

    def inverse(self, images: Tensor) -> Tensor:
        """Pixels [n, c, h, w] of whitened images; not clamped to [0, 1]."""
        return self.whitening.to(images.device).invert(images)


AnyPreprocess = Preprocess | ZCAPreprocess


def fit_zca(*sources: Images) -> ZCAPreprocess:
    """Fit on training pixels [n, c, h, w], of all sources, as MTT does with kornia (eps 0.1).

    Raises:
        ValueError: if the images are so large that the matrix would not fit.
    """
    parts = (part for images in sources for part in images.split(_BATCH))
    return ZCAPreprocess(fit_whitening(parts))
