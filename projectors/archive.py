"""A saved projector as one payload, for a set that carries its labeller with it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

from projectors.codecs.container import seal, unseal
from projectors.codecs.errors import CodecError
from projectors.description import DESCRIPTION, read_description

_AGAIN = "encode them again"


def pack_projector(path: str | os.PathLike[str], about: dict[str, Any]) -> bytes:
    """All files that `load` reads, compressed, in one checked container.

    Args:
        path: folder of a saved projector.
        about: JSON-able; what a receiver needs to know besides.

    Raises:
        ProjectorError: if the folder is no projector.
    """
    folder = Path(path)
    names = [DESCRIPTION, *read_description(folder).files]
    parts = [zlib.compress((folder / name).read_bytes(), 9) for name in names]
    files = [[name, len(part)] for name, part in zip(names, parts, strict=True)]
    return seal({"network": "projector", "files": files, "about": about}, b"".join(parts))


def unpack_projector(payload: bytes | memoryview, into: Path) -> dict[str, Any]:
    """Write the files of a packed projector into a folder; returns what was said of it.

    Raises:
        CodecError: for bytes that are cut short, damaged or no projector.
    """
    document, body = unseal(payload)
    if document.get("network") != "projector":
        raise CodecError("these encoded labels hold no projector; encode them again")
    try:
        files = [(Path(name), int(size)) for name, size in document["files"]]
        about = dict(document["about"])
    except (KeyError, TypeError, ValueError) as error:
        raise CodecError(f"a projector whose files are not listed ({error}); {_AGAIN}") from error
    place = 0
    for name, size in files:
        if str(name) != name.name or size < 0:
            raise CodecError(f"a projector's file {str(name)!r} lies outside its folder; refused")
        try:
            (into / name).write_bytes(zlib.decompress(body[place : place + size]))
        except zlib.error as error:
            raise CodecError(f"a broken file {str(name)!r} of a projector ({error})") from error
        place += size
    if place != len(body):
        raise CodecError(f"{len(body)} bytes for files that take {place}; {_AGAIN}")
    return about
