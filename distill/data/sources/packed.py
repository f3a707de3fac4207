"""The `packed` source: data that `pack_data` put on the disk, and that are read by batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from distill.data.parts import Parts, Request
from distill.data.splits import DataDigest, Split, check_class_names, check_images
from distill.store.packed import (
    INDEX,
    SPLITS,
    PackedIndex,
    StoredImages,
    read_index,
    write_index,
    write_shards,
)

# Bytes of pixels, as float32, that are in memory at once.
_PART_BYTES = 1 << 24


def read_packed(request: Request) -> Parts:
    """Read `packed:PATH`, a folder that `distill pack` made.

    Raises:
        SourceError: when there is no path.
        WorkError: when the folder holds no whole pack.
    """
    folder = request.path()
    index = read_index(folder)
    splits = {}
    for name in SPLITS:
        images = StoredImages(folder, name, index.shards[name])
        splits[name] = Split(images, images.labels)
    return Parts(**splits, class_names=index.class_names, digest=index.digest, packed=True)


def pack_data(
    parts: Parts, source: str, folder: Path, tell: Callable[[int], None] = lambda count: None
) -> PackedIndex:
    """Write real data as a pack; a part of a shard is in memory at a time.

    Args:
        parts: all three splits.
        source: where they come from.
        folder: to be made; an earlier pack in it is replaced.
        tell: called with the number of images that were written, again and again.

    Raises:
        DataError: when an image or the class names cannot be used.
    """
    check_class_names(parts.class_names)
    splits = dict(zip(SPLITS, parts.three, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    # Without its index a folder is no pack, whatever else is in it.
    (folder / INDEX).unlink(missing_ok=True)
    digest, shards = DataDigest(), {}
    for name, split in splits.items():
        checked = _parts(name, split, digest, tell)
        shards[name] = tuple(write_shards(folder, name, checked, split.labels))
    index = PackedIndex(parts.class_names, digest.finish(parts.class_names), source, shards)
    write_index(folder, index)
    return index


def verify_packed(folder: Path) -> bool:
    """Whether a pack's images, labels and class names are those that were packed.

    Raises:
        WorkError: when it cannot be read.
    """
    parts = read_packed(Request(f"packed:{folder}", str(folder)))
    digest = DataDigest()
    for name, split in zip(SPLITS, parts.three, strict=True):
        for _ in _parts(name, split, digest, lambda count: None):
            pass
    return digest.finish(parts.class_names) == parts.digest


def _parts(
    name: str, split: Split, digest: DataDigest, tell: Callable[[int], None]
) -> Iterator[Tensor]:
    """The images of a split, checked, digested and counted as they pass."""
    size = max(1, _PART_BYTES // (4 * split.images.shape[1:].numel()))
    for part in digest.passing(name, split, size):
        check_images(part)
        yield part
        tell(len(part))
