"""Mixing the images of a batch: CutMix and Mixup, drawn and applied in two calls.

Only images are mixed here. The committee votes on what it sees after the mixing, so no label has
to be mixed: source SRe2L and CV-DD, whose students replay the same mixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

MixKind = Literal["none", "cutmix", "mixup"]

# Shape of the Beta distribution of a Mixup's share; CutMix's is Beta(1, 1), which is uniform.
_MIXUP_SHAPE = 0.8

# Parameters of a batch: a box, or a share.
MIX_WIDTHS: dict[str, int] = {"none": 0, "cutmix": 4, "mixup": 1}


@dataclass(frozen=True)
class Mix:
    """How the images of one batch are mixed.

    Attributes:
        kind: "cutmix" or "mixup".
        partners: [b] position in the batch of the image that each is mixed with.
        parameters: of the whole batch. CutMix: [4] the box (top, bottom, left, right) in pixels
            that comes from the partner, exclusive at bottom and right. Mixup: [1] the share, in
            [0, 1], of the image itself.
    """

    kind: MixKind
    partners: Tensor
    parameters: Tensor

    def own_share(self, size: tuple[int, int]) -> float:
        """Share of itself in each mixed image of `size` (h, w): by area, or the weight of Mixup."""
        if self.kind == "mixup":
            return float(self.parameters[0])
        top, bottom, left, right = (int(value) for value in self.parameters)
        return 1 - max(0, bottom - top) * max(0, right - left) / (size[0] * size[1])

    def apply(self, images: Tensor) -> Tensor:
        """Mix `images` [b, c, h, w]; the same on every call.

        Raises:
            ValueError: if the mix was drawn for another number of images.
        """
        if len(self.partners) != len(images):
            raise ValueError(
                f"got {len(images)} images for a mix of {len(self.partners)}; draw one mix per "
                "batch"
            )
        others = images[self.partners.to(images.device, non_blocking=True)]
        if self.kind == "mixup":
            share = float(self.parameters[0])
            return share * images + (1 - share) * others
        top, bottom, left, right = (int(value) for value in self.parameters)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        return mixed


def draw_mix(
    kind: Literal["cutmix", "mixup"], count: int, size: tuple[int, int], generator: Generator
) -> Mix:
    """Draw the mix of `count` images of `size` (h, w).

    One box or share for the batch, as in SRe2L and CV-DD. The box has its centre anywhere and
    the sides of the image times sqrt(1 - share), and is clipped (Yun et al. 2019). Parameters
    are rounded to half precision, so that stored in two bytes they replay exactly.
    """
    partners = torch.randperm(count, generator=generator)
    if kind == "mixup":
        share = _beta(_MIXUP_SHAPE, generator)
        return Mix(kind, partners, torch.tensor([share]).half().float())
    unit = torch.rand(3, generator=generator, dtype=torch.float64)
    bounds = []
    for axis, side in enumerate(size):
        centre = int(float(unit[axis]) * side)
        half = int(side * float(1 - unit[2]) ** 0.5) // 2
        bounds += [max(centre - half, 0), min(centre + half, side)]
    return Mix(kind, partners, torch.tensor(bounds, dtype=torch.float32))


def _beta(shape: float, generator: Generator) -> float:
    """A draw from Beta(shape, shape), shape at most 1; Jöhnk 1964, fast where both are small."""
    while True:
        one, other = (
            torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / shape)
        ).tolist()
        if 0 < one + other <= 1:
            return one / (one + other)
