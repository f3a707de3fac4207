"""Packed real data: a folder that is read image by image, however many there are.

FOLDER/packed.json holds the class names, the digest, the source, and for each split the number of
images in each of its shards. FOLDER/train-0000.h5 and so on are the shards: /images [m, c, h, w],
one image a chunk with a checksum, and /labels [m]. Pixels are uint8 where that is exact,
else float32. A pack is made beside its place, and put there when it is whole.
"""

from __future__ import annotations

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
from distill.names import PACK_INDEX
from distill.store.documents import read_json
from distill.store.files import write_json
from distill.store.hdf5 import DAMAGE, checked_dataset, damaged, new_h5, open_plain, put, read_array
from distill.store.seals import fits, sealed

INDEX = PACK_INDEX

SPLITS = ("train", "validation", "test")

PACK_VERSION = 1

# The key of the digest that packed.json holds of itself; its `digest` is that of the data.
INDEX_SEAL = "index_digest"

# Bytes of pixels in a shard, and shards that are open at once.
SHARD_BYTES = 1 << 29

_MAX_OPEN_SHARDS = 64


@dataclass(frozen=True)
class PackedIndex:
    """The content of packed.json.

    Attributes:
        class_names: in the order of the labels.
        digest: of the data, as `distill.data.RealData.digest`.
        source: what was packed.
        shards: split -> images in each of its shards.
        notes: on the data, as `distill.data.RealData.notes`.
        sealed: whether it held a digest of itself, as all have but old ones.
    """

    class_names: tuple[str, ...]
    digest: str
    source: str
    shards: dict[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    sealed: bool = True


def shard_path(folder: Path, split: str, number: int) -> Path:
    """The path of a shard."""
    return folder / f"{split}-{number:04d}.h5"


def is_pack(folder: Path) -> bool:
    """Whether a folder holds a pack and nothing else, so that another may take its place."""
    try:
        index = read_index(folder)
    except WorkError:
        return False
    counts = index.shards.items()
    own = {shard_path(folder, split, i) for split, sizes in counts for i in range(len(sizes))}
    return set(folder.iterdir()) <= {folder / INDEX, *own}


def write_index(folder: Path, index: PackedIndex) -> None:
    """Write packed.json, which completes a pack."""
    content: dict[str, Any] = {
        "limbeck": "packed",
        "format": PACK_VERSION,
        "class_names": list(index.class_names),
        "digest": index.digest,
        "source": index.source,
        "shards": {name: list(counts) for name, counts in index.shards.items()},
    }
    if index.notes:
        content["notes"] = list(index.notes)
    write_json(folder / INDEX, sealed(content, INDEX_SEAL))


def read_index(folder: Path) -> PackedIndex:
    """Read and check packed.json.

    Raises:
        WorkError: if it is missing, foreign or damaged.
    """
    path = folder / INDEX
    try:
        raw: Any = read_json(path)
        kind, version = raw["limbeck"], raw["format"]
        shards = {name: tuple(raw["shards"][name]) for name in SPLITS}
        names, texts = tuple(raw["class_names"]), (raw["digest"], raw["source"])
        notes = tuple(raw.get("notes", ()))
        whole = fits(raw, INDEX_SEAL)
    except FileNotFoundError:
        raise WorkError(
            f"{folder} has no {INDEX}; name a folder that `distill pack` made, or pack it again"
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WorkError(f"{path} cannot be read ({error}); pack the data again") from None
    counts = [count for own in shards.values() for count in own]
    valid = (
        (kind, version) == ("packed", PACK_VERSION)
        and all(isinstance(text, str) for text in (*names, *texts, *notes))
        and all(type(count) is int and count > 0 for count in counts)
        and all(shards.values())
        and whole is not False
    )
    if not valid:
        raise WorkError(f"{path} is damaged, or of another version; pack the data again")
    return PackedIndex(names, *texts, shards, notes, whole is not None)


def write_shards(
    folder: Path, split: str, batches: Iterator[Tensor], labels: Tensor
) -> Iterator[int]:
    """Write the shards of a split; yields the number of images of each as it is written.

    Args:
        folder: of the pack.
        split: its name.
        batches: pixels float32 [b, c, h, w] in [0, 1], in order; one is in memory at a time.
        labels: [n] classes of all images.
    """
    number, done = 0, 0
    batch = next(batches, None)
    while batch is not None:
        with new_h5(shard_path(folder, split, number)) as file:
            pixels, exact = _packed_form(batch)
            images = file.create_dataset(
                "images",
                shape=(0, *batch.shape[1:]),
                maxshape=(None, *batch.shape[1:]),
                chunks=(1, *batch.shape[1:]),
                dtype=pixels.dtype,
                fletcher32=True,
                track_times=False,
            )
            while True:
                images.resize(len(images) + len(pixels), axis=0)
                images[len(images) - len(pixels) :] = pixels
                batch = next(batches, None)
                if batch is None or images.nbytes >= SHARD_BYTES:
                    break
                pixels, same = _packed_form(batch)
                if same != exact:
                    break
            count = len(images)
            kind = np.min_scalar_type(int(labels.max()))
            put(file, "labels", labels[done : done + count].numpy().astype(kind), None)
        yield count
        number, done = number + 1, done + count


def _packed_form(pixels: Tensor) -> tuple[np.ndarray, bool]:
    """The pixels as uint8 if that is exact, else unchanged; and whether it is."""
    whole = pixels.mul(255).round_().to(torch.uint8)
    if torch.equal(whole.float().div_(255), pixels):
        return whole.numpy(), True
    return pixels.numpy(), False


class PackedImages:
    """The images of a packed split, read from its shards when indexed."""

    def __init__(self, folder: Path, split: str, counts: Sequence[int]) -> None:
        """Check every shard.

        Raises:
            WorkError: if one is missing, damaged, or does not hold the images of the index.
        """
        self._paths = [shard_path(folder, split, number) for number in range(len(counts))]
        self._starts = [0, *accumulate(counts)]
        self._opened: OrderedDict[int, h5py.Dataset] = OrderedDict()
        labels, extents = [], set()
        for path, count in zip(self._paths, counts, strict=True):
            with open_plain(path) as file:
                images, own = checked_dataset(file, "images"), read_array(file, "labels")
                valid = images.ndim == 4 and images.dtype in (np.uint8, np.float32)
                if not valid or len(images) != count or own.shape != (count,):
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

    def __getitem__(self, index: Any, /) -> Tensor:
        """Pixels float32 [b, c, h, w] in [0, 1] at `index`, int64 [b] or a slice.

        Raises:
            WorkError: if a shard cannot be read.
        """
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)))
        order = torch.argsort(index)
        images = torch.empty(len(index), *self._extent)
        # In the order on disk; consecutive images are read at once.
        ordered = index[order].tolist()
        cuts = [i for i in range(1, len(ordered)) if self._apart(ordered[i - 1], ordered[i])]
        for start, stop in pairwise([0, *cuts, len(ordered)] if ordered else []):
            pixels = self._read(ordered[start], ordered[stop - 1] + 1)
            images[order[start:stop]] = pixels
        return images

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """All images in their order, `split_size` at a time."""
        for start in range(0, len(self), split_size):
            yield self[start : start + split_size]

    def _shard(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1

    def _apart(self, one: int, next_one: int) -> bool:
        return next_one != one + 1 or self._shard(one) != self._shard(next_one)

    def _read(self, first: int, last: int) -> Tensor:
        """Pixels of the images from `first` up to `last`, exclusive, of one shard."""
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
        """The images of a shard; the least recently used shards are closed."""
        if number not in self._opened:
            if len(self._opened) >= _MAX_OPEN_SHARDS:
                _, oldest = self._opened.popitem(last=False)
                oldest.file.close()
            self._opened[number] = checked_dataset(h5py.File(self._paths[number], "r"), "images")
        self._opened.move_to_end(number)
        return self._opened[number]
