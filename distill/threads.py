"""How many CPU threads a stage should use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Below this many pixels per batch and thread, waking a second thread costs more than it gives:
# on 16x16 digits in batches of ten, two threads took twice the time of one.
PIXELS_PER_THREAD = 16_000


@contextmanager
def threads_for(pixels: int, device: torch.device) -> Iterator[None]:
    """Use as many CPU threads as batches of `pixels` values keep busy.

    Where the user has set OMP_NUM_THREADS, that number stands. The choice depends on nothing
    that is measured, so the same machine gives the same bits.

    Args:
        pixels: values of one batch of images, n * c * h * w.
        device: where the work is done; only the CPU is affected.
    """
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, pixels // PIXELS_PER_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
