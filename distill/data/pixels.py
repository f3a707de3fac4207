"""Channel and size changes of images in [0, 1]."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from distill.data.splits import DataError
from distill.machine import available_bytes

# ITU-R BT.601 luma, as Pillow uses for mode "L".
_LUMA = (0.299, 0.587, 0.114)

_LARGEST_SIDE = 1 << 14


def check_channels(channels: int | None) -> None:
    """Check a requested number of channels.

    Raises:
        DataError: when it is neither None, 1 nor 3.
    """
    if channels not in (None, 1, 3):
        raise DataError(f"channels={channels} came, 1 (gray) or 3 (RGB) is needed; set one of them")


def check_size(size: int | None) -> None:
    """Check a requested image size in pixels.

    Raises:
        DataError: when it is below 1 or above 16,384.
    """
    if size is not None and size > _LARGEST_SIDE:
        raise DataError(f"size={size} came, at most {_LARGEST_SIDE} pixels can be; lower size")
    if size is not None and size < 1:
        raise DataError(f"size={size} came, at least 1 pixel is needed; set for example size=32")


def check_memory(count: int, extent: Sequence[int]) -> None:
    """Check that images fit in memory, before it is allocated.

    Args:
        count: images.
        extent: (c, h, w) of each.

    Raises:
        DataError: when they take more in float32 than is free.
    """
    needed, free = 4 * count * math.prod(extent), available_bytes()
    if free is not None and needed > free:
        raise DataError(
            f"{count} images of {'x'.join(map(str, extent))} take {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free; lower size or subset, or pack them with distill pack"
        )


def to_channels(images: Tensor, channels: int | None) -> Tensor:
    """Turn gray into RGB (three equal channels) or RGB into gray (BT.601 luma).

    Args:
        images: [n, c, h, w] in [0, 1].
        channels: 1, 3, or None to leave the images as they are.

    Returns:
        [n, channels, h, w] in [0, 1].

    Raises:
        DataError: when `channels` is another number, or c is neither 1, 3 nor `channels`.
    """
    check_channels(channels)
    came = images.shape[1]
    if channels is None or came == channels:
        return images
    if came not in (1, 3):
        raise DataError(
            f"images of {came} channels came, 1 or 3 are needed to make {channels}; convert them"
        )
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    weights = images.new_tensor(_LUMA).reshape(1, 3, 1, 1)
    # The three products can round to a sum just above 1.
    return (images * weights).sum(dim=1, keepdim=True).clamp_(0, 1)


def resize_images(images: Tensor, size: int | None) -> Tensor:
    """Resize to size x size pixels, bilinear with antialiasing.

    Images that are not square are cut to their central square first: the same field of view as
    resizing the shorter side and then cutting, but a long thin image never becomes a huge one.

    Args:
        images: float [n, c, h, w] in [0, 1].
        size: pixels, or None to leave the images as they are.

    Returns:
        [n, c, size, size] in [0, 1].

    Raises:
        DataError: when `size` is below 1.
    """
    check_size(size)
    if size is None:
        return images
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    if side == size:
        return square.contiguous()
    resized = functional.interpolate(
        square, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    # The filter's weights can round to a sum just above 1.
    return torch.clamp(resized, 0, 1)
