"""Images and labels that need not fit in memory, read in batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from synth.losses import hard_logits


class Images(Protocol):
    """Images [n, c, h, w] read in batches: a tensor, or a reader of files.

    `projectors` has a protocol of the same name and meaning, as it does not import this package.
    """

    @property
    def shape(self) -> torch.Size:
        """Number, channels, height and width: [n, c, h, w]."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, index: Any, /) -> Tensor:
        """The images [b, c, h, w] at `index`, int64 [b], in that order; see `images_at`."""
        ...

    def split(self, split_size: int, /) -> Iterable[Tensor]:
        """All images in their order, `split_size` at a time."""
        ...


class LabelLogits(Protocol):
    """Label logits [n, k] read in batches: a tensor, or `HardLogits`."""

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        ...

    def __getitem__(self, index: Any, /) -> Tensor:
        """The label logits [b, k] of the images at `index`, int64 [b] on `device`."""
        ...


@dataclass(frozen=True, eq=False)
class HardLogits:
    """`synth.losses.hard_logits` computed per batch: n classes are stored, not n * k logits.

    Attributes:
        hard: [n] classes.
        classes: k.
    """

    hard: Tensor
    classes: int

    @property
    def device(self) -> torch.device:
        """Device of the classes."""
        return self.hard.device

    def __getitem__(self, index: Any, /) -> Tensor:
        """Label logits [b, k] of the images at `index` [b]."""
        return hard_logits(self.hard[index], self.classes)


def images_at(images: Images, index: Tensor) -> Tensor:
    """The images [b, c, h, w] at `index`, int64 [b] on the CPU.

    A tensor is indexed on its own device. A reader of files needs the index on the CPU; copying
    it back from a GPU would synchronise.
    """
    if isinstance(images, Tensor):
        return images[index.to(images.device, non_blocking=True)]
    return images[index]


def gather(images: Images) -> Tensor:
    """All images in one tensor; a tensor is returned as it is."""
    if isinstance(images, Tensor):
        return images
    gathered = torch.empty(images.shape, device=images.device)
    start = 0
    for part in images.split(max(1, min(1000, len(images)))):
        gathered[start : start + len(part)] = part
        start += len(part)
    return gathered
