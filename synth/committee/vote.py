"""A committee of teachers and its vote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Committee:
    """Teachers with weights; the vote is the weighted mean of their logits.

    Attributes:
        members: networks of the same classes in the same order.
        weights: [m], not negative, summing to 1.

    Raises:
        ValueError: without members, or for weights that are not theirs or do not weigh.
    """

    members: tuple[nn.Module, ...]
    weights: Tensor

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("got no members; a committee needs at least one")
        if self.weights.shape != (len(self.members),):
            raise ValueError(
                f"got weights of shape {tuple(self.weights.shape)} for {len(self.members)} "
                "members; give one for each"
            )
        if not bool((self.weights >= 0).all() and self.weights.isfinite().all()):
            raise ValueError("a weight is negative or not finite; weights sum to 1")

    def vote(self, images: Tensor, *, batch_statistics: bool = False) -> Tensor:
        """Voted logits [n, k] of `images` [n, c, h, w], without gradients.

        Args:
            images: as the students see them.
            batch_statistics: BatchNorm uses the statistics of these images instead of the
                running ones (batch-specific soft labels, CV-DD). Dropout stays off, and the
                running statistics do not move.
        """
        votes = self.votes(images, batch_statistics=batch_statistics)
        weighted = (
            logits * weight for logits, weight in zip(votes, self.weights.tolist(), strict=True)
        )
        total = next(weighted)
        for logits in weighted:
            total = total + logits
        return total

    def votes(self, images: Tensor, *, batch_statistics: bool = False) -> Iterator[Tensor]:
        """Logits [n, k] of each member in turn; arguments as of `vote`."""
        for member in self.members:
            member.eval()
            with torch.no_grad(), ExitStack() as stack:
                if batch_statistics:
                    stack.enter_context(_batch_statistics(member))
                logits = member(images)
            yield logits

    @property
    def has_batch_norm(self) -> bool:
        """Whether a member has BatchNorm layers, without which batch statistics do nothing."""
        return any(batch_norms(member) for member in self.members)


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers of a network, in the order of its modules."""
    kind = nn.modules.batchnorm._BatchNorm
    return [module for module in network.modules() if isinstance(module, kind)]


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """BatchNorm in training mode, without updating its running statistics."""
    layers = batch_norms(network)
    before = [(layer.training, layer.track_running_stats) for layer in layers]
    for layer in layers:
        layer.training, layer.track_running_stats = True, False
    try:
        yield
    finally:
        for layer, (training, tracking) in zip(layers, before, strict=True):
            layer.training, layer.track_running_stats = training, tracking
