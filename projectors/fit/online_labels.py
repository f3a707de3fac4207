"""Soft labels asked for while students train; none is stored with the set."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from projectors.errors import ProjectorError


class OnlineLabels:
    """Labels batches of views, in bounded pieces, and remembers those that come again.

    Students of the same seed see the same views, and a student that trains on a pool of stored
    views sees each of them many times; asking a CLIP tower again would cost more than the
    student's own step. A whole batch is remembered, not an image: the same batch always gets
    the same bits, whether it was remembered or not.

    Args:
        ask: views [b, c, h, w] -> logits [b, k]; called without gradients.
        batch_size: views asked for at a time.
        cache_bytes: size of the logits that are remembered at most; what comes later is asked
            for each time. 0 remembers nothing.

    Attributes:
        asked: views that were asked for.
        remembered: views whose labels were found.
    """

    def __init__(
        self,
        ask: Callable[[Tensor], Tensor],
        *,
        batch_size: int = 256,
        cache_bytes: int = 1 << 28,
    ) -> None:
        if batch_size < 1 or cache_bytes < 0:
            raise ProjectorError(
                f"batch_size is {batch_size} and cache_bytes {cache_bytes}; write at least 1 and 0"
            )
        self._ask, self._batch_size, self._room = ask, batch_size, cache_bytes
        self._known: dict[bytes, Tensor] = {}
        self.asked = self.remembered = 0

    def __call__(self, views: Tensor) -> Tensor:
        """Logits [n, k] of views [n, c, h, w], on their device."""
        key = _digest(views) if self._room or self._known else b""
        if key in self._known:
            self.remembered += len(views)
            return self._known[key].to(views.device)
        self.asked += len(views)
        with torch.no_grad():
            logits = torch.cat([self._ask(part) for part in views.split(self._batch_size)])
        if logits.nbytes <= self._room:
            self._room -= logits.nbytes
            self._known[key] = logits.cpu()
        return logits


def _digest(views: Tensor) -> bytes:
    content = views.detach().contiguous().cpu().view(torch.uint8).numpy()
    digest = hashlib.blake2b(repr(tuple(views.shape)).encode(), digest_size=16)
    digest.update(content.tobytes())
    return digest.digest()
