"""The file below an HDF5 file that is being written."""

from __future__ import annotations

import os
from typing import BinaryIO


class Sink:
    """A file that never fails: its first error is kept, and what comes after it is dropped.

    HDF5 cannot close a file whose disk is full: it leaves tracebacks, and at times crashes, when
    the process ends. So it is told that all is well, and who made the sink asks for `error` once
    HDF5 has closed.

    Attributes:
        error: the first error of the system, or None.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """As `readinto`; h5py knows a file by its methods `seek` and `read`."""
        content = bytearray(size)
        self.readinto(memoryview(content))
        return bytes(content)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, with zeros where the file has ended, as HDF5's own files do."""
        view = memoryview(buffer).cast("B")
        count = 0
        while count < len(view) and (read := self._file.readinto(view[count:])):  # type: ignore[attr-defined]
            count += read
        view[count:] = bytes(len(view) - count)
        return len(view)

    def write(self, content: memoryview) -> int:
        """Write all of it; after an error, nothing."""
        view = memoryview(content).cast("B")
        count = 0
        try:
            while self.error is None and count < len(view):
                count += self._file.write(view[count:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int) -> int:
        """Cut or lengthen the file; after an error, nothing."""
        try:
            if self.error is None:
                self._file.truncate(size)
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None:
        """Nothing is held back."""
