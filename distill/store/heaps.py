"""A check of HDF5's global heaps, which hold its texts and are the one part without a checksum.

HDF5 walks a heap by the sizes that its objects state, and never ends where one states 0.
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
        OSError: if one would not end, or leads out of its own bounds.
    """
    found = path.stat()
    if found.st_size:
        _check(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=64)
def _check(path: Path, size: int, changed: int, node: int) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        for start in range(0, size, _WINDOW):
            # A signature that the windows' border cuts is found by the first of them.
            stop = start + _WINDOW + len(_MAGIC) - 1
            place = raw.find(_MAGIC, start, stop)
            while place >= 0:
                if not _ends(raw, place):
                    raise OSError("a heap of texts is damaged")
                place = raw.find(_MAGIC, place + 1, stop)
            if hasattr(mmap, "MADV_DONTNEED"):
                raw.madvise(mmap.MADV_DONTNEED, start, min(_WINDOW, size - start))


def _ends(raw: mmap.mmap, place: int) -> bool:
    """Whether the walk over the objects of the heap at `place` comes to its end."""
    (size,) = struct.unpack("<Q", raw[place + 8 : place + _HEAD].ljust(8, b"\0"))
    end, place = place + size, place + _HEAD
    if end > len(raw) or size < _HEAD:
        return False
    while place + _OBJECT.size <= end:
        index, _, _, length = _OBJECT.unpack(raw[place : place + _OBJECT.size])
        step = _OBJECT.size + -(-length // 8) * 8 if index else length
        if step < _OBJECT.size or place + step > end:
            return False
        place += step
    return True
