"""Mixed precision: a network computes in fewer bits where that is harmless, by torch's autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16"]


def forward(network: Callable[[Tensor], Tensor], images: Tensor, precision: Precision) -> Tensor:
    """Logits float32 [n, k] of `images` [n, c, h, w], computed in `precision`.

    Weights, their gradients and the optimiser stay float32; with "bfloat16", products and
    convolutions have 8 bits of mantissa. bfloat16 has float32's range, so no loss is scaled. On
    CUDA its images are laid out with channels last, the layout of the tensor cores' convolutions.
    Source: Micikevicius et al. 2018, Kalamkar et al. 2019.
    """
    if precision == "float32":
        return network(images)
    if images.device.type == "cuda":
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16):
        logits: Tensor = network(images)
    return logits.float()


@contextmanager
def full_float32() -> Iterator[None]:
    """Disable TF32 for matrix products and convolutions inside the block.

    By default cuDNN's convolutions round float32 to TF32's 10 bits of mantissa on a GPU that has
    it, which the small differences of large sums in a matching gradient do not survive.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before
