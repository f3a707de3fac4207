"""Convert images from their own normalisation and size to those of a tower."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from projectors.errors import ProjectorError
from projectors.model.tower import Tower


@dataclass(frozen=True)
class Preprocessing:
    """The normalisation of input images: pixels in [0, 1], minus `mean`, divided by `std`.

    Attributes:
        mean: one value per channel, 1 or 3 of them.
        std: as many, > 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ProjectorError(
                f"got {len(self.mean)} means and {len(self.std)} deviations, but images have 1 "
                "or 3 channels; give one of each per channel"
            )
        if not all(value > 0 for value in self.std):
            raise ProjectorError(f"std is {self.std}, but a deviation must be above 0; correct it")


class Preparation(nn.Module):
    """Images [n, c, h, w] as a tower takes them: [n, 3, H, W], resized and normalised.

    Differentiable; gray images become three equal channels.

    Args:
        tower: gives size and normalisation.
        preprocessing: normalisation of the input images.
    """

    input_mean: Tensor
    input_std: Tensor
    tower_mean: Tensor
    tower_std: Tensor

    def __init__(self, tower: Tower, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.size = tower.image_size
        for name, values in (
            ("input_mean", preprocessing.mean),
            ("input_std", preprocessing.std),
            ("tower_mean", tower.mean),
            ("tower_std", tower.std),
        ):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The images as the tower takes them.

        Raises:
            ProjectorError: if the images have another shape or number of channels.
        """
        channels = self.input_mean.shape[1]
        if images.ndim != 4 or images.shape[1] != channels:
            raise ProjectorError(
                f"images have the shape {tuple(images.shape)}, but this projector takes "
                f"[n, {channels}, h, w]; give images of the data it was fitted to"
            )
        pixels = images * self.input_std + self.input_mean
        # An identity where the size is right already; a branch would be frozen by an export.
        pixels = functional.interpolate(pixels, self.size, mode="bilinear", align_corners=False)
        # One mean per RGB channel: a gray image becomes three equal channels here.
        return (pixels - self.tower_mean) / self.tower_std


def image_encoder(tower: Tower, preprocessing: Preprocessing) -> nn.Module:
    """A tower's image encoder, without adapters: images [n, c, h, w] -> features [n, d].

    Args:
        tower: is left as it is; the encoder is a copy.
        preprocessing: normalisation of the input images.
    """
    visual = copy.deepcopy(tower.clip.visual)
    return nn.Sequential(Preparation(tower, preprocessing), visual).eval().requires_grad_(False)
