"""Plain feed-forward networks: VGG-11, AlexNet and a multilayer perceptron."""

from __future__ import annotations

import math

from torch import Tensor, nn

from synth.networks.layers import make_activation, make_norm, make_pooling


class VGG11(nn.Module):
    """VGG-11 (configuration A) with a norm after each convolution and one linear layer.

    Pooling stops once a side of the feature map is a single pixel. Source: Simonyan and
    Zisserman 2015; the single linear layer is the small-image form of the distillation papers.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        width: feature maps of the first layer (64 in the paper); later layers use 2, 4, 8 times.
        norm: none | instance | batch | layer | group.
        pooling: avg | max.
    """

    _STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,
        *,
        width: int = 64,
        norm: str = "instance",
        pooling: str = "max",
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"got width {width}; it must be at least 1")
        height, breadth = size
        layers: list[nn.Module] = []
        inputs = channels
        for stage in self._STAGES:
            for factor in stage:
                outputs = width * factor
                # Instance norm of a single pixel is zero whatever the input: leave it out there.
                single = height * breadth == 1 and norm == "instance"
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1),
                    nn.Identity() if single else make_norm(norm, outputs),
                    nn.ReLU(),
                ]
                inputs = outputs
            if min(height, breadth) >= 2:
                layers.append(make_pooling(pooling))
                height, breadth = height // 2, breadth // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs * height * breadth, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        return self.head(self.features(images).flatten(1))


class AlexNet(nn.Module):
    """The small-image AlexNet of the distillation papers: five convolutions, one linear layer.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        width: feature maps of the first layer (128 in MTT); the others keep the same ratios.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], classes: int, *, width: int = 128
    ) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"got width {width}; it must be at least 2")
        height, breadth = size
        layers: list[nn.Module] = []
        inputs = channels
        half = width // 2
        plan = ((width, 5, True), (3 * half, 5, True), (2 * width, 3, False), (3 * half, 3, False))
        for outputs, kernel, pooled in (*plan, (3 * half, 3, True)):
            layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU()]
            if pooled and min(height, breadth) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, breadth = height // 2, breadth // 2
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs * height * breadth, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        return self.head(self.features(images).flatten(1))


class MLP(nn.Module):
    """A multilayer perceptron on flattened pixels.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        depth: number of hidden layers, at least 1.
        width: units of each hidden layer.
        activation: relu | leaky | sigmoid.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,
        *,
        depth: int = 2,
        width: int = 128,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise ValueError(f"got depth {depth} and width {width}; both must be at least 1")
        layers: list[nn.Module] = []
        inputs = channels * math.prod(size)
        for _ in range(depth):
            layers += [nn.Linear(inputs, width), make_activation(activation)]
            inputs = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        return self.head(self.features(images.flatten(1)))
