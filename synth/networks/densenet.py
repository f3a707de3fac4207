"""DenseNet-121 for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.networks.layers import make_norm


class DenseLayer(nn.Module):
    """Norm, ReLU and convolution twice, whose output is concatenated to the inputs.

    Source: Huang et al. 2017, DenseNet-B: the 1x1 convolution makes four times the growth.
    """

    def __init__(self, inputs: int, growth: int, norm: str) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = make_norm(norm, 4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, inputs, h, w] to [n, inputs + growth, h, w]."""
        hidden = self.conv1(functional.relu(self.norm1(features)))
        return torch.cat([features, self.conv2(functional.relu(self.norm2(hidden)))], dim=1)


class DenseNet121(nn.Module):
    """DenseNet-121 with a 3x3, stride-1 stem and no max pooling.

    Between its dense blocks the maps are halved in number, and in size while both sides have
    more than two pixels. Source: Huang et al. 2017, table 1 (DenseNet-BC, compression 0.5).

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        width: the growth rate, maps that each layer adds (32 in the paper); the stem has twice.
        norm: none | instance | batch | layer | group.
    """

    _LAYERS = (6, 12, 24, 16)

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,
        *,
        width: int = 32,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"got width {width}; it must be at least 1")
        inputs, side = 2 * width, min(size)
        layers: list[nn.Module] = [nn.Conv2d(channels, inputs, 3, padding=1, bias=False)]
        for index, count in enumerate(self._LAYERS):
            if index:
                layers += [
                    make_norm(norm, inputs),
                    nn.ReLU(),
                    nn.Conv2d(inputs, inputs // 2, 1, bias=False),
                ]
                inputs //= 2
                if side > 2:
                    layers.append(nn.AvgPool2d(2))
                    side //= 2
            for _ in range(count):
                layers.append(DenseLayer(inputs, width, norm))
                inputs += width
        self.features = nn.Sequential(*layers, make_norm(norm, inputs), nn.ReLU())
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        return self.head(self.features(images).mean(dim=(2, 3)))
