"""A check of HDF5's global heaps, which hold its texts and are the one part without a checksum.

HDF5 walks a heap by the sizes of its objects, and loops forever if one is 0.
"""

from __future__ import annotations

import mmap
import struct
from functools import lru_cache
from pathlib import Path

# Signature, version 1, three zeros; then the size of the whole heap. HDF5 refuses other versions.
_MAGIC = b"GCOL\x01\x00\x00\x00"

_HEAD = 16

# Bytes that are searched, and resident, at once.
_WINDOW = 1 << 24

# Index, references, zeros, size. The size of index 0, the free space, counts this header too.
_OBJECT = struct.Struct("<HHIQ")


def check_heaps(path: Path) -> None:
    """Check every heap of a file; a file that has not changed since is not read again.

    Raises:
        OSError: if the walk over one would not end, or would leave its bounds.
    """
    status = path.stat()
    if status.st_size:
        _check(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=64)
def _check(path: Path, size: int, changed: int, node: int) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        for start in range(0, size, _WINDOW):
            # Windows overlap, so that a signature across their border is found.
            stop = start + _WINDOW + len(_MAGIC) - 1
            offset = raw.find(_MAGIC, start, stop)
            while offset >= 0:
                if not _ends(raw, offset):
                    raise OSError("a heap of texts is damaged")
                offset = raw.find(_MAGIC, offset + 1, stop)
            if hasattr(mmap, "MADV_DONTNEED"):
                raw.madvise(mmap.MADV_DONTNEED, start, min(_WINDOW, size - start))


def _ends(raw: mmap.mmap, offset: int) -> bool:
    """Whether the walk over the objects of the heap at `offset` ends."""
    (size,) = struct.unpack("<Q", raw[offset + 8 : offset + _HEAD].ljust(8, b"\0"))
    end, offset = offset + size, offset + _HEAD
    if end > len(raw) or size < _HEAD:
        return False
    while offset + _OBJECT.size <= end:
        index, _, _, length = _OBJECT.unpack(raw[offset : offset + _OBJECT.size])
        step = _OBJECT.size + -(-length // 8) * 8 if index else length
        if step < _OBJECT.size or offset + step > end:
            return False
        offset += step
    return True
