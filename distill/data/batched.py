"""Images that are made batch by batch: chosen from others, changed, or decoded from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from synth.images import Images

CPU = torch.device("cpu")


def parts_of(images: Images, size: int) -> Iterator[Tensor]:
    """All images in their order, `size` at a time: the `split` of whatever can be indexed."""
    for start in range(0, len(images), size):
        yield images[torch.arange(start, min(start + size, len(images)))]


def take(images: Images, places: Tensor) -> Images:
    """The images at `places` (int64 [m]): a copy of a tensor's, a choice of others'."""
    return images[places] if isinstance(images, Tensor) else Chosen(images, places)


def pixels_of_bytes(values: Tensor) -> Images:
    """Pixels in [0, 1] of bytes (uint8 [n, c, h, w]), a quarter of whose memory they take."""
    return Changed(values, lambda part: part.float().div_(255))


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some of the images of another source.

    Attributes:
        source: on the CPU.
        places: int64 [n], in the order of these images.
    """

    source: Images
    places: Tensor

    @property
    def shape(self) -> torch.Size:
        """[n, c, h, w]."""
        return torch.Size((len(self.places), *self.source.shape[1:]))

    @property
    def device(self) -> torch.device:
        """That of the source."""
        return self.source.device

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, places: Any, /) -> Tensor:
        return self.source[self.places[places.cpu() if isinstance(places, Tensor) else places]]

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """See `synth.images.Images`."""
        return parts_of(self, split_size)


@dataclass(frozen=True, eq=False)
class Changed:
    """The images of another source after a change that sees each image alone.

    Attributes:
        source: on the CPU.
        change: images [b, ...] on `device` -> images [b, c, h, w].
        device: to which batches go before they are changed.
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

    def __getitem__(self, places: Any, /) -> Tensor:
        at = places.to(self.source.device) if isinstance(places, Tensor) else places
        return self.change(self.source[at].to(self.device, non_blocking=True))

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """See `synth.images.Images`."""
        return parts_of(self, split_size)


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images that are decoded one by one, whenever they are asked for.

    Attributes:
        count: n.
        extent: (c, h, w).
        decode: place -> image [c, h, w] in [0, 1].
    """

    count: int
    extent: tuple[int, int, int]
    decode: Callable[[int], Tensor]

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

    def __getitem__(self, places: Any, /) -> Tensor:
        at = places.cpu() if isinstance(places, Tensor) else places
        numbers: Sequence[int] = torch.arange(self.count)[at].tolist()
        found = torch.empty(len(numbers), *self.extent)
        for row, place in zip(found, numbers, strict=True):
            row.copy_(self.decode(place))
        return found

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """See `synth.images.Images`."""
        return parts_of(self, split_size)
