"""How many CPU threads a stage should use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Below this much work per batch and thread, waking a second thread costs more than it gives: on
# 16x16 digits in batches of ten, two threads took twice the time of one on a narrow network.
WORK_PER_THREAD = 4_000_000


@contextmanager
def threads_for(pixels: int, parameters: int, device: torch.device) -> Iterator[None]:
    """Use as many CPU threads as a batch keeps busy.

    Work is judged by pixels times the square root of the parameters: a layer's share of the
    time grows with its width, its parameters with the square of it.

    Where the user has set OMP_NUM_THREADS, that number stands. The choice depends on nothing
    that is measured, so the same machine gives the same bits.

    Args:
        pixels: values of one batch of images, n * c * h * w.
        parameters: of the network.
        device: where the work is done; only the CPU is affected.
    """
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before = torch.get_num_threads()
    work = pixels * math.isqrt(parameters)
    torch.set_num_threads(max(1, min(before, work // WORK_PER_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
