"""ShuffleNetV2 for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.networks.layers import make_norm


def _shuffled(features: Tensor) -> Tensor:
    """Interleave the two halves of the channels of [n, c, h, w]."""
    n, c, h, w = features.shape
    return features.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def _pointwise(inputs: int, outputs: int, norm: str) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), make_norm(norm, outputs), nn.ReLU()]


def _depthwise(channels: int, stride: int, norm: str) -> list[nn.Module]:
    depthwise = nn.Conv2d(
        channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False
    )
    return [depthwise, make_norm(norm, channels)]


class ShuffleBlock(nn.Module):
    """Half of the channels pass through, the other half is convolved; Ma et al. 2018, figure 3.

    Where the block widens or halves the feature map, both halves are convolved from all inputs.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        half = outputs // 2
        self.splits = stride == 1 and inputs == outputs
        taken = half if self.splits else inputs
        self.straight: nn.Module = nn.Identity()
        if not self.splits:
            self.straight = nn.Sequential(
                *_depthwise(inputs, stride, norm), *_pointwise(inputs, half, norm)
            )
        self.convolved = nn.Sequential(
            *_pointwise(taken, half, norm),
            *_depthwise(half, stride, norm),
            *_pointwise(half, half, norm),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, inputs, h, w] to [n, outputs, h/stride, w/stride]."""
        one, other = features.chunk(2, dim=1) if self.splits else (features, features)
        return _shuffled(torch.cat([self.straight(one), self.convolved(other)], dim=1))


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 with a 3x3, stride-1 stem and no max pooling.

    A stage is halved only while both sides of its feature map have more than two pixels.
    Source: Ma et al. 2018, table 5; the small-image stem is that of the CIFAR variants.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        width: feature maps of the first stage, even (48 in the paper's 0.5x, 116 in its 1x);
            later stages double it.
        norm: none | instance | batch | layer | group.
    """

    _BLOCKS = (4, 8, 4)

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,
        *,
        width: int = 48,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"got width {width}; it must be even: half of the maps pass through")
        # 24 maps in the stem and 1,024 in the last convolution, as in the paper from 0.5x on.
        stem, last = min(24, width // 2), min(1024, width * 64 // 3)
        self.stem = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.stem_norm = make_norm(norm, stem)
        blocks: list[nn.Module] = []
        inputs, side = stem, min(size)
        for index, count in enumerate(self._BLOCKS):
            outputs = width * 2**index
            stride = 2 if side > 2 else 1
            side = -(-side // stride)
            for repeat in range(count):
                blocks.append(ShuffleBlock(inputs, outputs, 1 if repeat else stride, norm))
                inputs = outputs
        self.stages = nn.Sequential(*blocks, *_pointwise(inputs, last, norm))
        self.head = nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        features = self.stages(functional.relu(self.stem_norm(self.stem(images))))
        return self.head(features.mean(dim=(2, 3)))
