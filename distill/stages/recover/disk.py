"""The images of a set during recovery, on the disk before and after they are optimised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from distill.data import split_by_index
from distill.run.checkpoints import Checkpoint
from distill.store.files import digest_file
from distill.store.hdf5 import new_h5
from distill.store.large_arrays import StoredArray, put_large
from synth.images import Images
from synth.recovery import RecoverBatch

IMAGES = "images"

_STARTS = "starts"


@dataclass(frozen=True, eq=False)
class DiskImages:
    """Recovered images [n, c, h, w] in the parts of a checkpoint, one for each batch; on the CPU.

    Attributes:
        shape: [n, c, h, w].
        batches: all of them, in order.
        checkpoint: whose parts hold the images.
    """

    shape: torch.Size
    batches: Sequence[RecoverBatch]
    checkpoint: Checkpoint

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Any, /) -> Tensor:
        owners = self._owners[torch.arange(len(self))[places]]
        images = torch.empty((len(owners), *self.shape[1:]))
        for batch in owners[:, 0].unique().tolist():
            rows = torch.nonzero(owners[:, 0] == batch).flatten().tolist()
            with safe_open(self.checkpoint.part(batch).path, framework="pt") as file:
                stored = file.get_slice(IMAGES)
                for row in rows:
                    images[row] = stored[int(owners[row, 1])]
        return images

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """Batches of `split_size` images in order; the last may be smaller."""
        return split_by_index(self, split_size)

    @cached_property
    def _owners(self) -> Tensor:
        """[n, 2]: the batch that an image belongs to, and its place there."""
        owners = torch.zeros(len(self), 2, dtype=torch.long)
        for number, batch in enumerate(self.batches):
            owners[batch.places, 0] = number
            owners[batch.places, 1] = torch.arange(len(batch.places))
        return owners


def put_starts(checkpoint: Checkpoint, make: Callable[[], Images]) -> None:
    """Write the images that a recovery starts from, unless that was done before an interruption."""
    path, part = checkpoint.folder / f"{_STARTS}.h5", checkpoint.part(_STARTS)
    saved = part.load()
    if saved is None or not path.is_file() or digest_file(path) != saved[1]:
        with new_h5(path) as file:
            put_large(file, IMAGES, make(), np.float32)
        part.save({}, digest_file(path))


def open_starts(checkpoint: Checkpoint, shape: Sequence[int]) -> StoredArray:
    """The images [n, c, h, w] of `put_starts`."""
    return StoredArray(checkpoint.folder / f"{_STARTS}.h5", f"/{IMAGES}", torch.Size(shape))
