"""Images computed batch by batch: subsets or maps of others, or decoded from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from synth.images import Images

CPU = torch.device("cpu")


def split_by_index(images: Images, size: int) -> Iterator[Tensor]:
    """All images in their order, `size` at a time: `split` by indexing."""
    for start in range(0, len(images), size):
        yield images[torch.arange(start, min(start + size, len(images)))]


def select_images(images: Images, indices: Tensor) -> Images:
    """The images at `indices` (int64 [m]): a copy of a tensor, a subset of others."""
    return images[indices] if isinstance(images, Tensor) else ImageSubset(images, indices)


def origin_of(images: Images, index: int) -> Any:
    """What an image is decoded from, such as a `Picture`; None for images from arrays."""
    while True:
        if isinstance(images, ImageSubset):
            index = int(images.indices[index])
            images = images.source
        elif isinstance(images, MappedImages):
            images = images.source
        elif isinstance(images, DecodedImages) and images.origins:
            return images.origins[index]
        else:
            return None


def pixels_of_bytes(values: Tensor) -> Images:
    """Pixels in [0, 1] of bytes (uint8 [n, c, h, w]), in a quarter of the memory."""
    return MappedImages(values, lambda part: part.float().div_(255))


@dataclass(frozen=True, eq=False)
class ImageSubset:
    """Some of the images of another source.

    Attributes:
        source: on the CPU.
        indices: int64 [n], in the order of these images.
    """

    source: Images
    indices: Tensor

    @property
    def shape(self) -> torch.Size:
        """[n, c, h, w]."""
        return torch.Size((len(self.indices), *self.source.shape[1:]))

    @property
    def device(self) -> torch.device:
        """That of the source."""
        return self.source.device

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any, /) -> Tensor:
        return self.source[self.indices[index.cpu() if isinstance(index, Tensor) else index]]

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """All images in their order, `split_size` at a time."""
        return split_by_index(self, split_size)


@dataclass(frozen=True, eq=False)
class MappedImages:
    """The images of another source under a map of single images.

    Attributes:
        source: on the CPU.
        change: images [b, ...] on `device` -> images [b, c, h, w].
        device: to which batches are moved before the map.
    """

    source: Images
    change: Callable[[Tensor], Tensor]
    device: torch.device = CPU

    @cached_property
    def _extent(self) -> torch.Size:
        return self[torch.arange(1)].shape[1:]

    @property
    def shape(self) -> torch.Size:
        """[n, c, h, w]."""
        return torch.Size((len(self.source), *self._extent))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any, /) -> Tensor:
        own_index = index.to(self.source.device) if isinstance(index, Tensor) else index
        return self.change(self.source[own_index].to(self.device, non_blocking=True))

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """All images in their order, `split_size` at a time."""
        return split_by_index(self, split_size)


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Images that are decoded one by one when indexed.

    Attributes:
        count: n.
        extent: (c, h, w).
        decode: index -> image [c, h, w] in [0, 1].
        origins: what each image is decoded from, as a picture in a file; empty if not known.
    """

    count: int
    extent: tuple[int, int, int]
    decode: Callable[[int], Tensor]
    origins: Sequence[Any] = ()

    @property
    def shape(self) -> torch.Size:
        """[n, c, h, w]."""
        return torch.Size((self.count, *self.extent))

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return CPU

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any, /) -> Tensor:
        own_index = index.cpu() if isinstance(index, Tensor) else index
        indices: Sequence[int] = torch.arange(self.count)[own_index].tolist()
        images = torch.empty(len(indices), *self.extent)
        for image, position in zip(images, indices, strict=True):
            image.copy_(self.decode(position))
        return images

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """All images in their order, `split_size` at a time."""
        return split_by_index(self, split_size)
