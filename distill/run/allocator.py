"""The C library's allocator. Imports no torch."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# Options of glibc's mallopt. Without M_MMAP_MAX, tensors above 32 MiB are mapped anew each time.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

# What a process keeps at most at the end of its heap.
_KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Have the C library keep what tensors give back, for the next step takes as much again.

    By default glibc gives large tensors back to the system and gets them again page by page, which
    takes a good part of a training with large feature maps. Elsewhere this does nothing.
    """
    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        for option, value in ((_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_MAX, 0)):
            allocator.mallopt(option, value)
