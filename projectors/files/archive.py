"""A saved projector as one payload, for a set that includes its labeller."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

from projectors.codecs.container import inflate, seal, unseal
from projectors.codecs.errors import CodecError
from projectors.files.description import DESCRIPTION, is_plain_name, read_description, unsealed

# Limits on the size of a decompressed file. Fitted numbers hardly compress.
_MIN_LIMIT = 1 << 20

_MAX_EXPANSION = 100

_HINT = "encode them again"


def pack_projector(path: str | os.PathLike[str], about: dict[str, Any]) -> bytes:
    """All files that `load` reads, compressed, in one checked container.

    Args:
        path: folder of a saved projector.
        about: JSON-able; what else a receiver needs.

    Raises:
        ProjectorError: if the folder is no projector.
    """
    folder = Path(path)
    contents = {name: (folder / name).read_bytes() for name in read_description(folder).files}
    # The container has a checksum of all, so the description needs none that would cost bytes.
    description = unsealed((folder / DESCRIPTION).read_text("utf-8")).encode()
    parts = {
        name: zlib.compress(content, 9)
        for name, content in {DESCRIPTION: description, **contents}.items()
    }
    files = [[name, len(part)] for name, part in parts.items()]
    body = b"".join(parts.values())
    return seal({"network": "projector", "files": files, "about": about}, body)


def unpack_projector(payload: bytes | memoryview, into: Path) -> dict[str, Any]:
    """Write the files of a packed projector into a folder; returns the `about` of its packing.

    Raises:
        CodecError: for bytes that are cut short, damaged or no projector, and for files that
            lie outside the folder or would fill the memory.
    """
    document, body = unseal(payload)
    if document.get("network") != "projector":
        raise CodecError("these encoded labels hold no projector; encode them again")
    offset = 0
    for name, size in _files(document):
        content = inflate(
            body[offset : offset + size],
            _MIN_LIMIT + _MAX_EXPANSION * size,
            f"{name!r} of a projector",
        )
        (into / name).write_bytes(content)
        offset += size
    if offset != len(body):
        raise CodecError(f"{len(body)} bytes for files that take {offset}; {_HINT}")
    return document["about"]


def _files(document: dict[str, Any]) -> list[tuple[str, int]]:
    """Names and packed sizes, each of the right kind, before anything is written."""
    files, about = document.get("files"), document.get("about")
    if not isinstance(files, list) or not isinstance(about, dict):
        raise CodecError(f"a projector whose files are not listed; {_HINT}")
    entries: list[tuple[str, int]] = []
    for entry in files:
        if not isinstance(entry, list) or [type(part) for part in entry] != [str, int]:
            raise CodecError(f"a projector whose files are not listed: {str(entry)[:80]}; {_HINT}")
        name, size = entry
        if not is_plain_name(name) or size < 0:
            raise CodecError(f"a projector's file {name[:80]!r} lies outside its folder; refused")
        entries.append((name, size))
    return entries
