"""Layers whose derivatives are right in forward mode, reverse mode and both together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

NORMS = ("none", "instance", "batch", "layer", "group")

POOLINGS = ("none", "avg", "max")

ACTIVATIONS = ("relu", "leaky", "sigmoid")


class GroupNorm(nn.Module):
    """Group normalisation over [n, c, h, w]; `groups=channels` is instance norm, 1 layer norm.

    The native kernel is fast, but rounds its variance coarsely, and its forward-mode derivative,
    differentiated once more, is off by about 0.5 %: both too inexact for the matching gradient.
    Called functionally, with parameters that are not its own, the norm is therefore computed
    from its definition, which differentiates correctly in every order; a network that is
    trained in place uses the kernel. Source: Wu and He 2018, eq. 1-3.

    Args:
        groups: number of groups that `channels` is divided into.
        channels: c.
        eps: added to the (biased) variance.

    Raises:
        ValueError: if `channels` is not a multiple of `groups`.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(
                f"got {groups} groups for {channels} channels; channels must be a multiple of "
                "groups: choose another width"
            )
        self.groups = groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise [n, c, h, w]; same shape out."""
        if isinstance(self.weight, nn.Parameter):
            return functional.group_norm(images, self.groups, self.weight, self.bias, self.eps)
        return self._by_pixels(images) if lies_by_pixels(images) else self._from_definition(images)

    def _from_definition(self, images: Tensor) -> Tensor:
        n, c, h, w = images.shape
        grouped = images.reshape(n, self.groups, -1)
        centred = grouped - grouped.mean(dim=2, keepdim=True)
        variance = (centred * centred).mean(dim=2, keepdim=True)
        inverse = torch.rsqrt(variance + self.eps).expand(-1, -1, c // self.groups)
        # Scaling small tensors first leaves one pass over the images, and one of each derivative.
        scale = inverse.reshape(n, c) * self.weight
        shift = self.bias.view(1, c, 1, 1)
        return torch.addcmul(shift, centred.view(n, c, h, w), scale.view(n, c, 1, 1))

    def _by_pixels(self, images: Tensor) -> Tensor:
        pixels = split_pixels(images)
        grouped = pixels.unflatten(-1, (self.groups, -1))
        spots = (*range(1, pixels.dim() - 1), grouped.dim() - 1)
        centred = grouped - grouped.mean(dim=spots, keepdim=True)
        variance = (centred * centred).mean(dim=spots, keepdim=True)
        scale = torch.rsqrt(variance + self.eps) * self.weight.view(self.groups, -1)
        normed = centred * scale + self.bias.view(self.groups, -1)
        return join_pixels(normed.flatten(-2), images.shape)


class AveragePooling(nn.Module):
    """Mean of 2x2 pixels, stride 2."""

    def forward(self, images: Tensor) -> Tensor:
        """Pool [n, c, h, w] to [n, c, h // 2, w // 2]."""
        pixels = split_pixels(images)
        if lies_by_pixels(images) and pixels.dim() == 6:
            return pixels.mean(dim=(2, 4)).permute(0, 3, 1, 2)
        return functional.avg_pool2d(images, 2)


def lies_by_pixels(images: Tensor) -> bool:
    """Whether [n, c, h, w] lies in memory with channels last, and in no other order too."""
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()


def split_pixels(images: Tensor) -> Tensor:
    """[n, c, h, w] as [n, h / 2, 2, w / 2, 2, c], or as [n, h, w, c] where a side is odd.

    A compiler that sees pairs of rows and columns joins norm, activation and pooling into one
    loop over memory, and divides no index by two in it.
    """
    n, c, h, w = images.shape
    last = images.permute(0, 2, 3, 1)
    return last if h % 2 or w % 2 else last.reshape(n, h // 2, 2, w // 2, 2, c)


def join_pixels(pixels: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `split_pixels`: images of `shape` [n, c, h, w]."""
    n, c, h, w = shape
    return pixels.reshape(n, h, w, c).permute(0, 3, 1, 2)


def make_norm(name: str, channels: int) -> nn.Module:
    """The norm layer called `name` (one of NORMS) for `channels` feature maps."""
    builders: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "instance": lambda: GroupNorm(channels, channels),
        "batch": lambda: nn.BatchNorm2d(channels),
        "layer": lambda: GroupNorm(1, channels),
        "group": lambda: GroupNorm(max(1, channels // 8), channels),
    }
    return _choose("norm", name, builders)()


def make_pooling(name: str) -> nn.Module:
    """The 2x2, stride 2 pooling called `name` (one of POOLINGS)."""
    builders: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "avg": AveragePooling,
        "max": lambda: nn.MaxPool2d(2),
    }
    return _choose("pooling", name, builders)()


def make_activation(name: str) -> nn.Module:
    """The activation called `name` (one of ACTIVATIONS); leaky has slope 0.01."""
    builders: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "leaky": lambda: nn.LeakyReLU(0.01),
        "sigmoid": nn.Sigmoid,
    }
    return _choose("activation", name, builders)()


def _choose(
    kind: str, name: str, builders: dict[str, Callable[[], nn.Module]]
) -> Callable[[], nn.Module]:
    if name not in builders:
        raise ValueError(f"{kind} is {name!r}; choose one of {', '.join(builders)}")
    return builders[name]
