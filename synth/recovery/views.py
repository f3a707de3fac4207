"""The views of recovery: one crop box, one flip and one roll, shared by the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from synth.crops import Box, crop_resized, draw_box


@dataclass(frozen=True)
class SharedView:
    """What was drawn for a batch.

    Attributes:
        box: cut out and enlarged to the whole size.
        flipped: mirrored left to right.
        shift: rolled down and to the right by so many pixels, wrapping around.
    """

    box: Box
    flipped: bool
    shift: tuple[int, int]

    def apply(self, images: Tensor) -> Tensor:
        """The view of `images` [n, c, h, w]; differentiable, same shape."""
        seen = crop_resized(images, self.box, (images.shape[2], images.shape[3]))
        if self.flipped:
            seen = seen.flip(3)
        return torch.roll(seen, self.shift, dims=(2, 3)) if any(self.shift) else seen


@dataclass(frozen=True)
class SharedViews:
    """How views are drawn.

    One view for all images keeps a batch comparable with the statistics of whole images.
    The roll is one-sided. Source: the code of SRe2L and CV-DD.

    Attributes:
        smallest: least share of the area that the crop box keeps; 1 for no crop.
        flip: mirror every second view.
        roll: largest roll in pixels.
    """

    smallest: float = 0.08
    flip: bool = True
    roll: int = 4

    def sample(self, size: tuple[int, int], generator: Generator) -> SharedView:
        """Draw the view of one batch of images of `size` (h, w)."""
        box = draw_box(size, generator, self.smallest)
        flipped = self.flip and bool(torch.rand((), generator=generator) < 0.5)
        down, right = torch.randint(self.roll + 1, (2,), generator=generator).tolist()
        return SharedView(box, flipped, (down, right))
