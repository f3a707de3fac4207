"""The ConvNet of the dataset-distillation literature."""

from __future__ import annotations

from torch import Tensor, nn

from synth.networks.layers import make_activation, make_norm, make_pooling


class ConvNet(nn.Module):
    """`depth` blocks of 3x3 convolution, norm, activation and 2x2 pooling, then one linear layer.

    Pooling stops before a side of the feature map would become a single pixel: the mean of a whole
    instance-normalised map is nearly the same for every image. Source: Gidaris and Komodakis
    2018; as used by DC, DSA, MTT and TESLA.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        depth: number of blocks, at least 1.
        width: feature maps of each block.
        norm: none | instance | batch | layer | group.
        pooling: none | avg | max.
        activation: relu | leaky | sigmoid.
        padding: zeros around the images in the first convolution. Published results on 28x28
            images take 3, so that its maps are 32x32.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        classes: int,
        *,
        depth: int = 3,
        width: int = 128,
        norm: str = "instance",
        pooling: str = "avg",
        activation: str = "relu",
        padding: int = 1,
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise ValueError(f"got depth {depth} and width {width}; both must be at least 1")
        if padding < 1:
            raise ValueError(f"got padding {padding}; it must be at least 1")
        # A kernel of 3x3 keeps the size where one pixel is padded on each side.
        height, breadth = (side + 2 * (padding - 1) for side in size)
        layers: list[nn.Module] = []
        inputs = channels
        for block in range(depth):
            layers += [
                nn.Conv2d(inputs, width, kernel_size=3, padding=1 if block else padding),
                make_norm(norm, width),
                make_activation(activation),
            ]
            if pooling != "none" and min(height, breadth) >= 4:
                layers.append(make_pooling(pooling))
                height, breadth = height // 2, breadth // 2
            inputs = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width * height * breadth, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        return self.head(self.features(images).flatten(1))
