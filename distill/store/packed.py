"""Packed real data: a folder that is read image by image, however many there are.

FOLDER/packed.json says the class names, the digest, the source, and for each split the number of
images in each of its shards. FOLDER/train-0000.h5 and so on are the shards: /images [m, c, h, w],
one image a chunk with a checksum, and /labels [m]. Pixels are bytes where bytes say them exactly,
else float32. The index is written last, so a pack that was interrupted has none.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError
from distill.store.files import write_json
from distill.store.hdf5 import DAMAGE, damaged, new_h5, open_plain, put, read_array, stored

INDEX = "packed.json"

SPLITS = ("train", "validation", "test")

FORMAT_VERSION = 1

# Bytes of pixels in a shard, and shards that are open at once.
SHARD_BYTES = 1 << 29

_OPEN = 64


@dataclass(frozen=True)
class PackedIndex:
    """What packed.json says.

    Attributes:
        class_names: in the order of the labels.
        digest: of the data, as `distill.data.RealData.digest`.
        source: what was packed.
        shards: split -> images in each of its shards.
    """

    class_names: tuple[str, ...]
    digest: str
    source: str
    shards: dict[str, tuple[int, ...]]


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Where a shard is."""
    return folder / f"{split}-{number:04d}.h5"


def write_index(folder: Path, index: PackedIndex) -> None:
    """Finish a pack."""
    found = {
        "limbeck": "packed",
        "format": FORMAT_VERSION,
        "class_names": list(index.class_names),
        "digest": index.digest,
        "source": index.source,
        "shards": {name: list(counts) for name, counts in index.shards.items()},
    }
    write_json(folder / INDEX, found)


def read_index(folder: Path) -> PackedIndex:
    """Read and check packed.json.

    Raises:
        WorkError: if it is missing, foreign or damaged.
    """
    path = folder / INDEX
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        kind, version = raw["limbeck"], raw["format"]
        shards = {name: tuple(raw["shards"][name]) for name in SPLITS}
        names, texts = tuple(raw["class_names"]), (raw["digest"], raw["source"])
    except FileNotFoundError:
        raise WorkError(
            f"{folder} has no {INDEX}; name a folder that `distill pack` made, or pack it again"
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WorkError(f"{path} cannot be read ({error}); pack the data again") from None
    counts = [count for found in shards.values() for count in found]
    well = (
        (kind, version) == ("packed", FORMAT_VERSION)
        and all(isinstance(text, str) for text in (*names, *texts))
        and all(type(count) is int and count > 0 for count in counts)
        and all(shards.values())
    )
    if not well:
        raise WorkError(f"{path} is damaged, or of another version; pack the data again")
    return PackedIndex(names, *texts, shards)


def write_shards(
    folder: Path, split: str, parts: Iterator[Tensor], labels: Tensor
) -> Iterator[int]:
    """Write the shards of a split; yields the number of images of each as it is written.

    Args:
        folder: of the pack.
        split: its name.
        parts: pixels float32 [b, c, h, w] in [0, 1], in order; one is in memory at a time.
        labels: [n] classes of all images.
    """
    number, done = 0, 0
    held = next(parts, None)
    while held is not None:
        with new_h5(shard_path(folder, split, number)) as file:
            pixels, exact = _packed_form(held)
            images = file.create_dataset(
                "images",
                shape=(0, *held.shape[1:]),
                maxshape=(None, *held.shape[1:]),
                chunks=(1, *held.shape[1:]),
                dtype=pixels.dtype,
                fletcher32=True,
                track_times=False,
            )
            while True:
                images.resize(len(images) + len(pixels), axis=0)
                images[len(images) - len(pixels) :] = pixels
                held = next(parts, None)
                if held is None or images.nbytes >= SHARD_BYTES:
                    break
                pixels, same = _packed_form(held)
                if same != exact:
                    break
            count = len(images)
            kind = np.min_scalar_type(int(labels.max()))
            put(file, "labels", labels[done : done + count].numpy().astype(kind), None)
        yield count
        number, done = number + 1, done + count


def _packed_form(pixels: Tensor) -> tuple[np.ndarray, bool]:
    """The pixels as bytes if these say them exactly, else as they are; and whether they do."""
    whole = pixels.mul(255).round_().to(torch.uint8)
    if torch.equal(whole.float().div_(255), pixels):
        return whole.numpy(), True
    return pixels.numpy(), False


class StoredImages:
    """The images of a packed split, read from its shards whenever they are asked for."""

    def __init__(self, folder: Path, split: str, counts: Sequence[int]) -> None:
        """Look at every shard.

        Raises:
            WorkError: if one is missing, damaged, or holds other images than the index says.
        """
        self._paths = [shard_path(folder, split, number) for number in range(len(counts))]
        self._starts = [0, *accumulate(counts)]
        self._opened: OrderedDict[int, h5py.Dataset] = OrderedDict()
        labels, extents = [], set()
        for path, count in zip(self._paths, counts, strict=True):
            with open_plain(path) as file:
                images, own = stored(file, "images"), read_array(file, "labels")
                well = images.ndim == 4 and images.dtype in (np.uint8, np.float32)
                if not well or len(images) != count or own.shape != (count,):
                    raise OSError(f"its arrays are not those of {count} images")
                extents.add(images.shape[1:])
                labels.append(torch.from_numpy(own.astype(np.int64)))
        if len(extents) != 1:
            raise WorkError(f"{folder}: the shards of {split} differ in shape; pack the data again")
        self._extent = extents.pop()
        self.labels = torch.cat(labels)

    @property
    def shape(self) -> torch.Size:
        """[n, c, h, w]."""
        return torch.Size((self._starts[-1], *self._extent))

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, places: Any, /) -> Tensor:
        """Pixels float32 [b, c, h, w] in [0, 1] at `places`, int64 [b] or a slice.

        Raises:
            WorkError: if a shard cannot be read.
        """
        if isinstance(places, slice):
            places = torch.arange(*places.indices(len(self)))
        order = torch.argsort(places)
        found = torch.empty(len(places), *self._extent)
        # In the order of the disk; neighbours, as of a pass over all images, are read at once.
        numbers = places[order].tolist()
        cuts = [i for i in range(1, len(numbers)) if self._apart(numbers[i - 1], numbers[i])]
        for start, stop in pairwise([0, *cuts, len(numbers)] if numbers else []):
            pixels = self._read(numbers[start], numbers[stop - 1] + 1)
            found[order[start:stop]] = pixels
        return found

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """See `synth.images.Images`."""
        for start in range(0, len(self), split_size):
            yield self[start : start + split_size]

    def _shard(self, place: int) -> int:
        return bisect_right(self._starts, place) - 1

    def _apart(self, one: int, next_one: int) -> bool:
        return next_one != one + 1 or self._shard(one) != self._shard(next_one)

    def _read(self, first: int, last: int) -> Tensor:
        """Pixels of the places from `first` to before `last`, of one shard."""
        number = self._shard(first)
        start = self._starts[number]
        path = self._paths[number]
        try:
            pixels = torch.from_numpy(self._dataset(number)[first - start : last - start])
        except DAMAGE as error:
            raise damaged(path, error) from None
        if pixels.dtype == torch.uint8:
            return pixels.float().div_(255)
        low, high = torch.aminmax(pixels)
        if not (low >= 0 and high <= 1):
            raise WorkError(f"{path} holds pixels outside [0, 1]; pack the data again")
        return pixels

    def _dataset(self, number: int) -> h5py.Dataset:
        """The images of a shard, which stays open until many others were used."""
        if number not in self._opened:
            if len(self._opened) >= _OPEN:
                _, oldest = self._opened.popitem(last=False)
                oldest.file.close()
            self._opened[number] = stored(h5py.File(self._paths[number], "r"), "images")
        self._opened.move_to_end(number)
        return self._opened[number]
