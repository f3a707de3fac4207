"""Views: sampled augmentation parameters, and the augmentations that sample them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from synth.augment.dsa_families import DSA_FAMILIES, FAMILIES


@dataclass(frozen=True)
class View:
    """Augmentation parameters of one batch: `parameters[i]` [n, width] belongs to `families[i]`."""

    families: tuple[str, ...]
    parameters: tuple[Tensor, ...]

    def apply(self, images: Tensor) -> Tensor:
        """Augment `images` [n, c, h, w]; differentiable, and the same on every call.

        Raises:
            ValueError: if the view was sampled for another number of images.
        """
        for family, parameters in zip(self.families, self.parameters, strict=True):
            if len(parameters) != len(images):
                raise ValueError(
                    f"got {len(images)} images for a view of {len(parameters)}; sample one view "
                    "per batch"
                )
            drawn = parameters.to(images.device, images.dtype, non_blocking=True)
            images = FAMILIES[family].act(images, drawn)
        return images

    def select(self, index: Tensor | slice) -> View:
        """The view of some of the images."""
        return View(self.families, tuple(p[index] for p in self.parameters))

    def to_tensor(self, count: int) -> Tensor:
        """All parameters of `count` images side by side, [count, sum of widths]."""
        return torch.cat([torch.zeros(count, 0), *self.parameters], dim=1)

    @staticmethod
    def from_tensor(families: tuple[str, ...], tensor: Tensor) -> View:
        """The inverse of `to_tensor`."""
        widths = [FAMILIES[family].width for family in families]
        if tensor.shape[1] != sum(widths):
            raise ValueError(
                f"got {tensor.shape[1]} view parameters per image for families "
                f"{'_'.join(families)}, which need {sum(widths)}"
            )
        return View(families, tuple(torch.split(tensor, widths, dim=1)) if widths else ())


@dataclass(frozen=True)
class Augmentation:
    """A choice of families, applied all in turn or one per batch.

    Args:
        families: names in FAMILIES.
        one_per_batch: draw a single family for the batch (DSA's mode "S") instead of all.
    """

    families: tuple[str, ...]
    one_per_batch: bool = False

    def __post_init__(self) -> None:
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown:
            raise ValueError(
                f"unknown augmentation {', '.join(unknown)}; choose from {', '.join(FAMILIES)}"
            )

    def sample(self, count: int, size: tuple[int, int], generator: Generator) -> View:
        """Draw the view of `count` images of `size` (h, w).

        Drawn on the CPU, so that every device sees the same view; rounded to half precision,
        so that a view stored in two bytes a parameter replays exactly.
        """
        families = self.families
        if self.one_per_batch and len(families) > 1:
            chosen = int(torch.randint(len(families), (1,), generator=generator))
            families = (families[chosen],)
        drawn = (FAMILIES[family].draw(count, size, generator) for family in families)
        return View(families, tuple(p.half().float() for p in drawn))


def dsa(families: tuple[str, ...] = DSA_FAMILIES) -> Augmentation:
    """Differentiable siamese augmentation, mode "S": one family per batch.

    Parameters are drawn per image, as in the public trajectory-matching code. Source: Zhao and
    Bilen 2021.
    """
    return Augmentation(families, one_per_batch=True)


def parse_families(text: str, sign: str = "_") -> tuple[str, ...]:
    """The families named in `text`, joined by `sign`; "none" is no family."""
    return () if text in ("", "none") else tuple(text.replace("color", "colour").split(sign))
