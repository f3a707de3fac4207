"""Splits of Pillow images and classes, read at once or when indexed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from distill.data.batched import DecodedImages
from distill.data.pixels import resize_images, to_channels
from distill.data.source_splits import Request
from distill.data.splits import DataError, Split

if TYPE_CHECKING:
    from PIL import Image


_GRAY = ("1", "L", "LA")


def eager_split(
    pairs: Iterable[tuple[Image.Image, int]], request: Request, names: tuple[str, ...] | None
) -> tuple[Split, tuple[str, ...]]:
    """Read images one after another; only their final sizes are all in memory.

    Args:
        pairs: Pillow images and classes from 0.
        request: its size and channels are applied to each image.
        names: of the classes; None numbers them.

    Returns:
        The split and the class names.

    Raises:
        DataError: when there are no images, or they differ in size and `size` is not set.
    """
    images: list[Tensor] = []
    labels: list[int] = []
    for picture, label in pairs:
        pixels = resize_images(to_channels(_pixels(picture), request.channels), request.size)
        if images and pixels.shape[1:] != images[0].shape:
            raise _differ(request, images[0], pixels[0])
        images.append(pixels[0])
        labels.append(int(label))
    if not images:
        raise DataError(f"{request.source!r} holds no images; name another source")
    classes = torch.tensor(labels, dtype=torch.int64)
    split = Split(torch.stack(images), classes)
    return split, names or tuple(str(k) for k in range(int(classes.max()) + 1))


def lazy_split(
    picture: Callable[[int], Image.Image],
    labels: Sequence[int],
    request: Request,
    names: tuple[str, ...] | None,
) -> tuple[Split, tuple[str, ...]]:
    """As `eager_split`, with images decoded when they are indexed; none is kept in memory.

    Args:
        picture: index -> Pillow image.
        labels: [n] classes from 0.
        request: its size and channels are applied to each image.
        names: of the classes; None numbers them.

    Raises:
        DataError: when there are no images; or, when they are indexed, as `eager_split`.
    """
    if not labels:
        raise DataError(f"{request.source!r} holds no images; name another source")

    def shaped(index: int) -> Tensor:
        pixels = to_channels(_pixels(picture(index)), request.channels)
        return resize_images(pixels, request.size)[0]

    first = shaped(0)

    def decode(index: int) -> Tensor:
        image = shaped(index)
        if image.shape != first.shape:
            raise _differ(request, first, image)
        return image

    c, h, w = first.shape
    classes = torch.tensor(labels, dtype=torch.int64)
    split = Split(DecodedImages(len(labels), (c, h, w), decode), classes)
    return split, names or tuple(str(k) for k in range(int(classes.max()) + 1))


def _differ(request: Request, first: Tensor, other: Tensor) -> DataError:
    return DataError(
        f"{request.source!r} holds images of {_extent(first)} and of {_extent(other)}; set size "
        "(and channels) to bring them to one shape"
    )


def _extent(image: Tensor) -> str:
    return "x".join(str(side) for side in image.shape)


def _pixels(picture: Image.Image) -> Tensor:
    """[1, c, h, w] in [0, 1], gray or colours; transparency is dropped."""
    mode = "L" if picture.mode in _GRAY else "RGB"
    array = np.array(picture.convert(mode), dtype=np.float32) / 255
    pixels = torch.from_numpy(array)
    return pixels[None, None] if mode == "L" else pixels.permute(2, 0, 1)[None].contiguous()
