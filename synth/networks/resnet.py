"""ResNet-18 and ResNet-50 for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from synth.networks.layers import make_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; He et al. 2016, figure 5 (left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = make_norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, width)
        self.shortcut = _shortcut(inputs, width, stride, norm)

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, inputs, h, w] to [n, width, h/stride, w/stride]."""
        hidden = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(features))


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; He et al. 2016, figure 5 (right).

    The stride is that of the 3x3 convolution, as in torchvision.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: str) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm1 = make_norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = make_norm(norm, width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.norm3 = make_norm(norm, outputs)
        self.shortcut = _shortcut(inputs, outputs, stride, norm)

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, inputs, h, w] to [n, 4 * width, h/stride, w/stride]."""
        hidden = functional.relu(self.norm1(self.conv1(features)))
        hidden = functional.relu(self.norm2(self.conv2(hidden)))
        return functional.relu(self.norm3(self.conv3(hidden)) + self.shortcut(features))


def _shortcut(inputs: int, outputs: int, stride: int, norm: str) -> nn.Module:
    """What is added to a block's outputs: its inputs, projected where the shapes differ."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), make_norm(norm, outputs)
    )


def _stages(
    block: type[BasicBlock | BottleneckBlock],
    counts: tuple[int, ...],
    width: int,
    side: int,
    norm: str,
) -> tuple[nn.Sequential, int]:
    """Stages of `counts` blocks, each stage twice as wide; and the feature maps they end in.

    A stage is halved only while both sides of its feature map have more than two pixels, so
    that a norm over one image's map always has several values to work with.
    """
    blocks: list[nn.Module] = []
    inputs = width
    for index, count in enumerate(counts):
        stride = 2 if index and side > 2 else 1
        side = -(-side // stride)
        for repeat in range(count):
            blocks.append(block(inputs, width * 2**index, 1 if repeat else stride, norm))
            inputs = width * 2**index * block.expansion
    return nn.Sequential(*blocks), inputs


class ResNet18(nn.Module):
    """ResNet-18 with the small-image stem: one 3x3 convolution of stride 1 and no max pooling.

    Source: He et al. 2016, table 1; the stem as in the CIFAR networks of the same paper.

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
        self.stages, outputs = _stages(BasicBlock, (2, 2, 2, 2), width, min(size), norm)
        self.head = nn.Linear(outputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        features = self.stages(functional.relu(self.stem_norm(self.stem(images))))
        return self.head(features.mean(dim=(2, 3)))


class ResNet50(nn.Module):
    """ResNet-50 with the small-image stem of `ResNet18`; its blocks end in four times the width.

    Source: He et al. 2016, table 1.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        width: feature maps of the stem and of the first stage's 3x3 convolutions (64 in the
            paper); later stages double it.
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
        self.stages, outputs = _stages(BottleneckBlock, (3, 4, 6, 3), width, min(size), norm)
        self.head = nn.Linear(outputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        features = self.stages(functional.relu(self.stem_norm(self.stem(images))))
        return self.head(features.mean(dim=(2, 3)))
