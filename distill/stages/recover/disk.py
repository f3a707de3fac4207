"""A large set while it is recovered: its images wait on the disk, before and after their turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from distill.data import parts_of
from distill.store.hdf5 import new_h5
from distill.store.large_arrays import StoredRows, put_rows
from synth.images import Images
from synth.recovery import RecoverBatch

_NAME = "images"


@dataclass(frozen=True, eq=False)
class DiskImages:
    """Images [n, c, h, w] on the disk, those of finished batches as recovered; on the CPU.

    Attributes:
        starts: as all images start.
        batches: all of them, in order.
        done: how many are finished.
        file: number of a finished batch -> a safetensors file with its images.
    """

    starts: Images
    batches: Sequence[RecoverBatch]
    done: int
    file: Callable[[int], Path]

    @property
    def shape(self) -> torch.Size:
        """[n, c, h, w]."""
        return self.starts.shape

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, places: Any, /) -> Tensor:
        numbers = torch.arange(len(self))[places]
        found = self.starts[numbers]
        for row, (batch, place) in enumerate(self._owners[numbers].tolist()):
            if batch < self.done:
                with safe_open(self.file(batch), framework="pt") as file:
                    found[row] = file.get_slice(_NAME)[place]
        return found

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """See `synth.images.Images`."""
        return parts_of(self, split_size)

    @cached_property
    def _owners(self) -> Tensor:
        """[n, 2]: the batch that an image belongs to, and its place there."""
        found = torch.zeros(len(self), 2, dtype=torch.long)
        for number, batch in enumerate(self.batches):
            found[batch.places, 0] = number
            found[batch.places, 1] = torch.arange(len(batch.places))
        return found


def put_starts(path: Path, shape: Sequence[int], make: Callable[[], Images]) -> StoredRows:
    """The images that a recovery starts from, in a file: made now, or before an interruption."""
    if not path.is_file():
        with new_h5(path) as file:
            put_rows(file, _NAME, make(), np.float32)
    return open_starts(path, shape)


def open_starts(path: Path, shape: Sequence[int]) -> StoredRows:
    """The images [n, c, h, w] of a file that `put_starts` made."""
    return StoredRows(path, f"/{_NAME}", torch.Size(shape))
