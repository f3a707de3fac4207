"""What a projector costs its receiver, in bytes."""

import os
from dataclasses import dataclass
from pathlib import Path

from projectors.description import DESCRIPTION, read_description


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


def projector_bytes(path: str | os.PathLike[str]) -> ProjectorBytes:
    """Count the bytes of a saved projector.

    Raises:
        ProjectorError: if the folder is no projector.
        FileNotFoundError: if one of its files is missing.
    """
    folder = Path(path)
    description = read_description(folder)
    names = [DESCRIPTION, *description.files]
    shipped = sum((folder / name).stat().st_size for name in names)
    return ProjectorBytes(shipped, description.tower.external_bytes)
