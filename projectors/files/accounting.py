"""Bytes that a receiver of a projector needs."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from projectors.files.description import DESCRIPTION, read_description
from projectors.files.tensors import check_file


@dataclass(frozen=True)
class ProjectorBytes:
    """Bytes of a projector.

    Attributes:
        shipped: all files of the folder that `load` reads.
        external: tensors of the tower, which must be fetched elsewhere; 0 for a tower that is
            drawn again from its seed.
    """

    shipped: int
    external: int


@dataclass(frozen=True)
class FileBytes:
    """One file, or array, that a receiver needs.

    Attributes:
        name: of the file or array.
        stored: bytes as they are.
        compressed: bytes after zlib at its best level, as an archive ships them.
    """

    name: str
    stored: int
    compressed: int

    @property
    def shipped(self) -> int:
        """Bytes in an archive, which stores a file as it is where compression gains nothing."""
        return min(self.stored, self.compressed)


def file_bytes(name: str, data: bytes) -> FileBytes:
    """Count the bytes of one file's content."""
    return FileBytes(name, len(data), len(zlib.compress(data, 9)))


def projector_bytes(path: str | os.PathLike[str]) -> ProjectorBytes:
    """Count the bytes of a saved projector.

    Raises:
        ProjectorError: if the folder is no projector, or a file is missing or damaged.
    """
    folder = Path(path)
    description = read_description(folder)
    for name, digest in description.files.items():
        check_file(folder / name, digest, DESCRIPTION)
    names = [DESCRIPTION, *description.files]
    shipped = sum((folder / name).stat().st_size for name in names)
    return ProjectorBytes(shipped, description.tower.external_bytes)
