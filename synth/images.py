"""Images that may be more than memory holds: whatever hands out batches of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from synth.losses import hard_logits


class Images(Protocol):
    """Images [n, c, h, w] that are read by batches. A tensor is one; so is a reader of files."""

    @property
    def shape(self) -> torch.Size:
        """Number, channels, height and width: [n, c, h, w]."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, places: Any, /) -> Tensor:
        """The images [b, c, h, w] at `places`, int64 [b], in that order; see `chosen`."""
        ...

    def split(self, split_size: int, /) -> Iterable[Tensor]:
        """All images in their order, `split_size` at a time."""
        ...


class Labels(Protocol):
    """Label logits [n, k] that are read by batches. A tensor is one, and so are `HardLogits`."""

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        ...

    def __getitem__(self, places: Any, /) -> Tensor:
        """The label logits [b, k] of the images at `places`, int64 [b] on `device`."""
        ...


@dataclass(frozen=True, eq=False)
class HardLogits:
    """`synth.losses.hard_logits` made batch by batch: n numbers are kept in place of n * k.

    Attributes:
        hard: [n] classes.
        classes: k.
    """

    hard: Tensor
    classes: int

    @property
    def device(self) -> torch.device:
        """That of the classes."""
        return self.hard.device

    def __getitem__(self, places: Any, /) -> Tensor:
        """Label logits [b, k] of the images at `places` [b]."""
        return hard_logits(self.hard[places], self.classes)


def chosen(images: Images, places: Tensor) -> Tensor:
    """The images [b, c, h, w] at `places`, int64 [b] on the CPU.

    A tensor needs them on its own device. A reader of files needs them on the CPU, and would make
    the CPU wait for a GPU that had them.
    """
    if isinstance(images, Tensor):
        return images[places.to(images.device, non_blocking=True)]
    return images[places]


def gather(images: Images) -> Tensor:
    """All images in one tensor; a tensor is returned as it is."""
    if isinstance(images, Tensor):
        return images
    found = torch.empty(images.shape, device=images.device)
    start = 0
    for part in images.split(max(1, min(1000, len(images)))):
        found[start : start + len(part)] = part
        start += len(part)
    return found
