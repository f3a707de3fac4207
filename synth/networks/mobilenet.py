"""MobileNetV2 for small images."""

from __future__ import annotations

from torch import Tensor, nn

from synth.networks.layers import make_norm


def _convolved(
    inputs: int, outputs: int, side: int, norm: str, *, stride: int = 1, depthwise: bool = False
) -> nn.Sequential:
    """A convolution of `side` x `side` pixels, its norm and ReLU6."""
    convolution = nn.Conv2d(
        inputs,
        outputs,
        side,
        stride=stride,
        padding=side // 2,
        groups=inputs if depthwise else 1,
        bias=False,
    )
    return nn.Sequential(convolution, make_norm(norm, outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each map by 3x3, narrow by 1x1; Sandler et al. 2018, figure 4.

    The inputs are added where the shapes allow.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, norm: str) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(_convolved(inputs, hidden, 1, norm))
        layers += [
            _convolved(hidden, hidden, 3, norm, stride=stride, depthwise=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            make_norm(norm, outputs),
        ]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, inputs, h, w] to [n, outputs, h/stride, w/stride]."""
        outputs = self.layers(features)
        return features + outputs if self.adds else outputs


class MobileNetV2(nn.Module):
    """MobileNetV2 with a 3x3, stride-1 stem and no dropout.

    Of the paper's strides, those of the stem and of the second stage are 1, as in the CIFAR
    variants; the others halve only while both sides have more than two pixels. Source: Sandler
    et al. 2018, table 2.

    Args:
        channels: c of the images.
        size: (h, w) of the images in pixels.
        classes: k, the number of logits.
        width: feature maps of the stem (32 in the paper), with which all others scale.
        norm: none | instance | batch | layer | group.
    """

    # Expansion, feature maps, blocks and stride of each stage.
    _STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

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

        def scaled(maps: int) -> int:
            return max(2, maps * width // 32)

        inputs, side = scaled(32), min(size)
        layers: list[nn.Module] = [_convolved(channels, inputs, 3, norm)]
        for expansion, maps, count, full_stride in self._STAGES:
            stride = full_stride if side > 2 else 1
            side = -(-side // stride)
            for repeat in range(count):
                layers.append(
                    InvertedResidual(inputs, scaled(maps), 1 if repeat else stride, expansion, norm)
                )
                inputs = scaled(maps)
        self.features = nn.Sequential(*layers, _convolved(inputs, scaled(1280), 1, norm))
        self.head = nn.Linear(scaled(1280), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, k] of images [n, c, h, w]."""
        return self.head(self.features(images).mean(dim=(2, 3)))
