"""Soft labels computed while students train; none is stored with the set."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from projectors.errors import ProjectorError


class OnlineLabels:
    """Labels batches of views in parts of bounded size, and caches the labels.

    Students of the same seed see the same views, and a student that trains on a pool of stored
    views sees each of them many times; running a CLIP tower again would cost more than the
    student's own step. Whole batches are cached, not images, so that a batch always gets the same
    bits.

    Args:
        label: views [b, c, h, w] -> logits [b, k]; called without gradients.
        batch_size: views labelled at a time.
        cache_bytes: largest size of the cached logits; batches beyond it are labelled each time.
            0 caches nothing.

    Attributes:
        computed: views that were labelled.
        cached: views whose labels came from the cache.
    """

    def __init__(
        self,
        label: Callable[[Tensor], Tensor],
        *,
        batch_size: int = 256,
        cache_bytes: int = 1 << 28,
    ) -> None:
        if batch_size < 1 or cache_bytes < 0:
            raise ProjectorError(
                f"batch_size is {batch_size} and cache_bytes {cache_bytes}; write at least 1 and 0"
            )
        self._label, self._batch_size, self._free_bytes = label, batch_size, cache_bytes
        self._cache: dict[bytes, Tensor] = {}
        self.computed = self.cached = 0

    def __call__(self, views: Tensor) -> Tensor:
        """Logits [n, k] of views [n, c, h, w], on their device."""
        key = _digest(views) if self._free_bytes or self._cache else b""
        if key in self._cache:
            self.cached += len(views)
            return self._cache[key].to(views.device)
        self.computed += len(views)
        with torch.no_grad():
            logits = torch.cat([self._label(part) for part in views.split(self._batch_size)])
        if logits.nbytes <= self._free_bytes:
            self._free_bytes -= logits.nbytes
            self._cache[key] = logits.cpu()
        return logits


def _digest(views: Tensor) -> bytes:
    content = views.detach().contiguous().cpu().view(torch.uint8).numpy()
    digest = hashlib.blake2b(repr(tuple(views.shape)).encode(), digest_size=16)
    digest.update(content.tobytes())
    return digest.digest()
