"""The `packed` source: data that `pack_data` wrote, read in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from distill.data.source_splits import Request, SourceSplits
from distill.data.splits import DataDigest, Split, check_class_names, check_images, data_notes
from distill.store.files import new_folder
from distill.store.packed import (
    SPLITS,
    PackedImages,
    PackedIndex,
    is_pack,
    read_index,
    write_index,
    write_shards,
)

# Bytes of pixels, as float32, that are in memory at once.
_BATCH_BYTES = 1 << 24


def read_packed(request: Request) -> SourceSplits:
    """Read `packed:PATH`, a folder that `distill pack` made.

    Raises:
        SourceError: when there is no path.
        WorkError: when the folder holds no whole pack.
    """
    folder = request.path()
    index = read_index(folder)
    splits = {}
    for name in SPLITS:
        images = PackedImages(folder, name, index.shards[name])
        splits[name] = Split(images, images.labels)
    return SourceSplits(
        splits["train"],
        splits["test"],
        index.class_names,
        splits["validation"],
        packed=True,
        digest=index.digest,
        notes=index.notes,
    )


def pack_data(
    data: SourceSplits,
    source: str,
    folder: Path,
    tell: Callable[[int], None] = lambda count: None,
) -> PackedIndex:
    """Write real data as a pack, one batch in memory at a time.

    Args:
        data: all three splits.
        source: where they come from.
        folder: to be made; an earlier pack there is replaced when this one is whole.
        tell: called with the number of images of each batch that was written.

    Raises:
        DataError: when an image or the class names cannot be used.
        OSError: when it cannot be written, or something else is there.
    """
    check_class_names(data.class_names)
    splits = dict(zip(SPLITS, data.three, strict=True))
    with new_folder(folder, is_pack) as fresh:
        digest, shards = DataDigest(), {}
        for name, split in splits.items():
            checked = _checked_batches(name, split, digest, tell)
            shards[name] = tuple(write_shards(fresh, name, checked, split.labels))
        names = data.class_names
        notes = data.notes + data_notes(digest, data.train.labels, names)
        index = PackedIndex(names, digest.finish(names), source, shards, notes)
        write_index(fresh, index)
    return index


def verify_packed(folder: Path) -> bool:
    """Whether a pack's images, labels and class names are those that were packed.

    Raises:
        WorkError: when it cannot be read.
    """
    packed = read_packed(Request(f"packed:{folder}", str(folder)))
    digest = DataDigest()
    for name, split in zip(SPLITS, packed.three, strict=True):
        for _ in _checked_batches(name, split, digest, lambda count: None):
            pass
    return digest.finish(packed.class_names) == packed.digest


def _checked_batches(
    name: str, split: Split, digest: DataDigest, tell: Callable[[int], None]
) -> Iterator[Tensor]:
    """The images of a split in batches, each checked, digested and counted."""
    size = max(1, _BATCH_BYTES // (4 * split.images.shape[1:].numel()))
    for batch in digest.passing(name, split, size):
        check_images(batch)
        yield batch
        tell(len(batch))
