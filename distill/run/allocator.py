"""Memory of the C library and of Python. Imports no torch."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Options of glibc's mallopt. Without M_MMAP_MAX, tensors above 32 MiB are mapped anew each time.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

# What a process keeps at most at the end of its heap.
_KEPT_BYTES = 2**30

# New objects before cycles are looked for among them, and how often among older ones.
_RARELY = (50_000, 20, 100)


def keep_freed_memory() -> None:
    """Have the C library keep what tensors give back, for the next step takes as much again.

    By default glibc gives large tensors back to the system and gets them again page by page, which
    takes a good part of a training with large feature maps. Elsewhere this does nothing.
    """
    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        for option, value in ((_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_MAX, 0)):
            allocator.mallopt(option, value)


@contextmanager
def collect_rarely() -> Iterator[None]:
    """Have Python look for cycles of objects less often inside the block.

    Imports and dry runs make objects that stay, which it would look through again and again: a
    sixth of the time of a plan. Not for training, where a cycle may hold large tensors.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
