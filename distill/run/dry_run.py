"""Memory and floating-point operations of a piece of work, from a dry run on the meta device.

Operators run on tensors that have shapes and no values; the bytes of live tensors and the
operations of convolutions and matrix products are counted. The workspaces of kernels, and the
process itself, come on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Cost:
    """What a piece of work needs.

    Attributes:
        flops: floating-point operations of convolutions and matrix products; a
            multiply-add is two.
        peak_bytes: the most bytes of tensors that are alive at once.
    """

    flops: int
    peak_bytes: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors of one kind of device that are alive, and operations.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
        flops: floating-point operations so far, see `Cost`.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._device = device
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and count the memory of its results and its operations."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == self._device:
                self._note(leaf.untyped_storage())
        count = flop_registry.get(getattr(func, "_overloadpacket", None))
        if count is not None:
            self.flops += int(count(*args, **(kwargs or {}), out_val=result))
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        # A view shares the storage of its base, and a storage has one Python object while it lives.
        key = id(storage)
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def run_dry(work: Callable[[], object]) -> Cost:
    """What `work` needs; it must make all its tensors on the meta device."""
    with LiveBytes() as live:
        work()
    return Cost(live.flops, live.peak)
