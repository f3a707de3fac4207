"""What the features of recovered images should be near, inside a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from synth.formation import decode_images
from synth.precision import Precision, forward
from synth.recovery.statistics import NormStatistics, statistics_distance, watch_batch_norms
from synth.recovery.views import SharedView


class Aim(Protocol):
    """A distance of images from what is wanted of them, seen through a teacher."""

    def __call__(
        self, network: nn.Module, images: Tensor, view: SharedView, precision: Precision
    ) -> tuple[Tensor, Tensor]:
        """Logits [b, k] of the view of `images` [b, c, h, w], and the distance, scalar."""
        ...


@dataclass(frozen=True)
class NormAim:
    """Statistics of the inputs of BatchNorm layers. Source: SRe2L (Yin et al. 2023).

    Attributes:
        targets: one entry per BatchNorm layer, [c].
        first: multiplier of the first layer's term, 10 in the code of SRe2L and CV-DD.
    """

    targets: Sequence[NormStatistics]
    first: float = 10.0

    def __call__(
        self, network: nn.Module, images: Tensor, view: SharedView, precision: Precision
    ) -> tuple[Tensor, Tensor]:
        """See `Aim`; the distance is `statistics_distance`."""
        with watch_batch_norms(network) as seen:
            logits = forward(network, view.apply(images), precision)
        return logits, statistics_distance(seen, self.targets, self.first)


@dataclass(frozen=True, eq=False)
class AnchorAim:
    """Features of real images that each recovered one stands for.

    An image is cut into factor x factor cells, each enlarged to the whole size, and a cell is
    compared with its own anchor, under the same view, by the mean absolute difference of the
    outputs of the middle convolution: earlier ones show texture, later ones the class alone.
    Source: CIM (Shang et al. 2026) and its code, which has no cross-entropy beside it, and a view
    of DSA.

    Attributes:
        anchors: real images [b * factor^2, c, h, w], those of image 0 first.
        factor: cells along a side.
    """

    anchors: Tensor
    factor: int = 1

    def __call__(
        self, network: nn.Module, images: Tensor, view: SharedView, precision: Precision
    ) -> tuple[Tensor, Tensor]:
        """See `Aim`."""
        cells = decode_images(images, self.factor)
        layer = _convolutions(network)[len(_convolutions(network)) // 2]
        with watch_layers([layer]) as seen:
            logits = forward(network, view.apply(torch.cat([cells, self.anchors])), precision)
        features, wanted = seen[0].outputs.float().split(len(cells))
        distance = (features - wanted).abs().mean()
        whole = logits[: len(cells)]
        if self.factor > 1:
            whole = forward(network, view.apply(images), precision)
        return whole, distance


@dataclass(frozen=True, eq=False)
class DirectionAim:
    """Directions of the gradients that images give to the weights of convolutions.

    With X the inputs of a layer as the columns its kernel meets, [i, p], and Y its outputs, [o, p],
    the gradient of a least-squares loss is, up to the class, G = Y X^T / p - mean(X)^T, which takes
    no backward pass. Its direction is U V^T of its singular value decomposition, all singular
    values set to 1: an orthogonal matrix, which OGM is called after. The distance is the sum over
    layers of |U V^T - U' V'^T|^2. Source: after the abstract of OGM (Bo et al. 2026) and a summary
    of the paper, whose text and code were not to be had; its running mean over batches is left out,
    as batches are recovered independently.

    Attributes:
        targets: `gradient_directions` of real images.
    """

    targets: Sequence[Tensor]

    def __call__(
        self, network: nn.Module, images: Tensor, view: SharedView, precision: Precision
    ) -> tuple[Tensor, Tensor]:
        """See `Aim`."""
        with watch_layers(_whole_convolutions(network)) as seen:
            logits = forward(network, view.apply(images), precision)
        distance = torch.zeros((), device=images.device)
        for entry, target in zip(seen, self.targets, strict=True):
            products, inputs = _sums(entry)
            distance = distance + (_direction(products - inputs) - target).square().sum()
        return logits, distance


@torch.no_grad()
def gradient_directions(
    network: nn.Module, images: Sequence[Tensor] | Iterator[Tensor]
) -> list[Tensor]:
    """The directions [o, i] of `DirectionAim`, of the mean over real images, one for each layer.

    Args:
        network: with convolutions; put into evaluation mode.
        images: batches [n, c, h, w].

    Raises:
        ValueError: if the network has no convolution of all its channels.
    """
    layers, count = _whole_convolutions(network), 0
    network.eval()
    totals = [torch.zeros(0)] * len(layers)
    for batch in images:
        with watch_layers(layers) as seen:
            network(batch)
        for place, entry in enumerate(seen):
            products, inputs = _sums(entry)
            share = len(batch) * (products - inputs)
            totals[place] = share if count == 0 else totals[place] + share
        count += len(batch)
    return [_direction(total / max(count, 1)) for total in totals]


@dataclass(frozen=True, eq=False)
class LayerPass:
    """What went into a convolution and what came out, [n, c, h, w] each."""

    layer: nn.Conv2d
    inputs: Tensor
    outputs: Tensor


@contextmanager
def watch_layers(layers: Sequence[nn.Conv2d]) -> Iterator[list[LayerPass]]:
    """Record the passes of convolutions while the block runs, in the order of the calls."""
    seen: list[LayerPass] = []

    def watch(layer: nn.Conv2d) -> torch.utils.hooks.RemovableHandle:
        return layer.register_forward_hook(
            lambda module, inputs, outputs: seen.append(LayerPass(layer, inputs[0], outputs))
        )

    handles = [watch(layer) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not found:
        raise ValueError(
            "a member has no convolution, whose features recovery compares with; choose another "
            "network, or set the weight of the statistics to 0"
        )
    return found


def _whole_convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """Convolutions that see all channels: the gradient of others is no matrix."""
    return [layer for layer in _convolutions(network) if layer.groups == 1]


def _sums(entry: LayerPass) -> tuple[Tensor, Tensor]:
    """Y X^T / p [o, i] and mean(X)^T [1, i] of a layer."""
    layer = entry.layer
    columns = nn.functional.unfold(
        entry.inputs.float(),
        layer.kernel_size,
        dilation=layer.dilation,
        padding=_padding(layer),
        stride=layer.stride,
    )
    outputs = entry.outputs.float().flatten(2)
    places = outputs.shape[0] * outputs.shape[2]
    products = torch.einsum("nop,nip->oi", outputs, columns) / places
    return products, columns.mean(dim=(0, 2))[None]


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    """Of each side, where the layer says it in words."""
    if not isinstance(layer.padding, str):
        return layer.padding
    if layer.padding == "valid":
        return (0, 0)
    sides = zip(layer.kernel_size, layer.dilation, strict=True)
    return tuple((side - 1) * apart // 2 for side, apart in sides)


# Newton-Schulz steps: singular values of at least 1/500 of the norm come within 1 % of 1.
_POLAR_STEPS = 20


def _direction(matrix: Tensor) -> Tensor:
    """U V^T of a matrix [o, i], without the derivatives of a decomposition, which may not exist.

    By the Newton-Schulz iteration X -> 1.5 X - 0.5 X X^T X; singular values far below the others
    stay below 1.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    found = matrix if wide else matrix.T
    found = found / found.norm().clamp_min(torch.finfo(torch.float32).tiny)
    for _ in range(_POLAR_STEPS):
        found = 1.5 * found - 0.5 * (found @ found.T) @ found
    return found if wide else found.T
