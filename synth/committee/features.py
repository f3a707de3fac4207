"""Features of a classifier: the inputs of its last linear layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from synth.committee.vote import Committee
from synth.images import Images


@contextmanager
def watch_head(network: nn.Module) -> Iterator[list[Tensor]]:
    """Record the inputs of the last linear layer, call by call, while the block runs.

    Raises:
        ValueError: if the network has no linear layer, or makes no use of the last one.
    """
    heads = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise ValueError("the network has no linear layer to take features from; choose another")
    seen: list[Tensor] = []
    handle = heads[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
    if not seen:
        raise ValueError(
            "the network's last linear layer is not what gives its logits, so it has no features "
            "to take; define the head last, or choose another"
        )


@torch.no_grad()
def head_inputs(network: nn.Module, images: Images, batch_size: int = 500) -> Tensor:
    """The inputs of the last linear layer of `network`, [n, d], in evaluation mode.

    Args:
        network: a classifier.
        images: [n, c, h, w].
        batch_size: images in one forward pass.

    Raises:
        ValueError: if the network has no linear layer.
    """
    with watch_head(network) as captured:
        network.eval()
        for part in images.split(batch_size):
            network(part)
    return torch.cat(captured).flatten(1)


def committee_features(committee: Committee, images: Images) -> Tensor:
    """Features of all members side by side, [n, d].

    Each member's are centred, and scaled so that their mean squared length is its weight in the
    vote: a wide member does not count for more than a narrow one.
    """
    scaled = []
    for member, weight in zip(committee.members, committee.weights.tolist(), strict=True):
        features = head_inputs(member, images)
        features = features - features.mean(dim=0)
        length = features.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)
        scaled.append(features * (weight**0.5 / length))
    return torch.cat(scaled, dim=1)
