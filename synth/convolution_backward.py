"""The derivatives of a convolution on a CPU, where its own kernel is slow.

oneDNN takes long for the derivative of a bias, which is a sum. And its kernels work on blocks of 16
channels: for images of 1 or 3, a product of the same size and the sum of its columns are faster
(col2im, Chellapilla, Puri and Simard 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# From so many channels on, the kernel is faster than the product.
_MOST_CHANNELS = 4

_backward = torch.ops.aten.convolution_backward


def convolution_backward(grad: Tensor, images: Tensor, weight: Tensor, *options: Any) -> Any:
    """As `aten.convolution_backward`; NotImplemented where its kernel is to be taken as it is.

    Args:
        grad: [b, o, h', w'] of the convolution's output.
        images: [b, c, h, w].
        weight: [o, c, i, j].
        options: what the kernel takes besides, from the sizes of the bias to the mask, which says
            whether the derivatives of images, weight and bias are wanted; the rest is None.
    """
    *shape, mask = options
    _, stride, padding, dilation, transposed, _, groups = shape
    plain = not transposed and groups == 1 and {*stride, *dilation} == {1}
    by_product = mask[0] and plain and images.dim() == 4 and images.shape[1] <= _MOST_CHANNELS
    if not (by_product or mask[2]):
        return NotImplemented
    of_images, of_weight = None, None
    rest = [mask[0] and not by_product, mask[1], False]
    if any(rest):
        of_images, of_weight, _ = _backward(grad, images, weight, *shape, rest)
    if by_product:
        of_images = _of_images(grad, images.shape, weight, padding)
    of_bias = grad.sum((0, *range(2, grad.dim()))) if mask[2] else None
    return of_images, of_weight, of_bias


def _of_images(
    grad: Tensor, shape: Sequence[int], weight: Tensor, padding: Sequence[int]
) -> Tensor:
    """[b, c, h, w]: each pixel collects from the outputs that it went into."""
    b, c, h, w = shape
    o, _, i, j = weight.shape
    height, width = grad.shape[2:]
    rows = grad.permute(0, 2, 3, 1).reshape(b, -1, o)
    spread = torch.matmul(weight.reshape(o, -1).t(), rows.transpose(1, 2))
    spread = spread.reshape(b, c, i, j, height, width)
    total = grad.new_zeros(b, c, h, w)
    for y in range(i):
        for x in range(j):
            top, left = y - padding[0], x - padding[1]
            sides = (left, w - width - left, top, h - height - top)
            total = total + functional.pad(spread[:, :, y, x], sides)
    return total
