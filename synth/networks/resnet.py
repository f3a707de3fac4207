"""ResNet-18 for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from synth.networks.layers import make_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; He et al. 2016, figure 5 (left)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = make_norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), make_norm(norm, outputs)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, inputs, h, w] to [n, outputs, h/stride, w/stride]."""
        hidden = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(features))


class ResNet18(nn.Module):
    """ResNet-18 with the small-image stem: one 3x3 convolution of stride 1 and no max pooling.

    A stage is halved only while both sides of its feature map have more than two pixels, so
    that a norm over one image's map always has several values to work with.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        width: feature maps of the first stage (64 in the paper); later stages double it.
        norm: none | instance | batch | layer | group.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,
        *,
        width: int = 64,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"got width {width}; it must be at least 1")
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stem_norm = make_norm(norm, width)
        stages: list[nn.Module] = []
        inputs, side = width, min(size)
        for index in range(4):
            outputs = width * 2**index
            stride = 2 if index and side > 2 else 1
            side = -(-side // stride)
            stages.append(BasicBlock(inputs, outputs, stride, norm))
            stages.append(BasicBlock(outputs, outputs, 1, norm))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        features = self.stages(functional.relu(self.stem_norm(self.stem(images))))
        return self.head(features.mean(dim=(2, 3)))
