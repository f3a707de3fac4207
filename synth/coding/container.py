"""The bytes around coded images: they say what they are and notice every damage.

magic "LIMI" | version u8 | header length u16 | header | body | checksum
header: JSON of the coding, sorted, no spaces, without fields that have their default
checksum: BLAKE2b of all before it, 8 bytes                                   (little-endian)

The defaults belong to the format: whoever changes one raises the version.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import MISSING, fields
from typing import Any

from torch import Tensor

from synth.coding.base import CODERS, ImageCoding, check_shape
from synth.coding.bases import Bases
from synth.coding.errors import CodingError
from synth.coding.frequency import Frequency
from synth.coding.palette import Palette
from synth.coding.pixels import Pixels
from synth.coding.rounded import Rounded
from synth.coding.tones import Tones

MAGIC = b"LIMI"

VERSION = 1

CODINGS: dict[str, type[ImageCoding]] = {
    "pixels": Pixels,
    "rounded": Rounded,
    "frequency": Frequency,
    "palette": Palette,
    "bases": Bases,
    "tones": Tones,
}

# The most values that images may decode to, unless the caller allows more.
DECODED_LIMIT = 1 << 30

_PREFIX = struct.Struct("<4sBH")

_CHECKSUM_BYTES = 8

_AGAIN = "fetch or encode it again"


def pack_images(coding: ImageCoding, parameters: Tensor, coder: str = "arithmetic") -> bytes:
    """Coded images with their header and checksum.

    Args:
        coding: what the parameters belong to.
        parameters: as of `ImageCoding.start`.
        coder: one of `CODERS`.

    Raises:
        CodingError: for an unknown coder, for parameters that are not finite, or if the coder's
            library is not installed.
    """
    if coder not in CODERS:
        raise CodingError(f"no coder {coder!r}; there are {', '.join(CODERS)}")
    header = json.dumps(_document(coding, coder), sort_keys=True, separators=(",", ":")).encode()
    body = coding.pack(parameters, coder)
    start = _PREFIX.pack(MAGIC, VERSION, len(header)) + header + body
    return start + _checksum(start)


def unpack_images(payload: bytes, *, limit: int = DECODED_LIMIT) -> tuple[Tensor, ImageCoding]:
    """The pixels [n, c, h, w] in [0, 1] of `pack_images`, and their coding.

    Args:
        payload: the coded images.
        limit: most values that they may decode to; checked before memory is taken for them.

    Raises:
        CodingError: for bytes that are foreign, too new, cut short, too long, damaged or too
            large, or if the coder's library is not installed.
    """
    coding, coder, body = open_images(payload, limit=limit)
    return coding.unpack(body, coder), coding


def open_images(payload: bytes, *, limit: int = DECODED_LIMIT) -> tuple[ImageCoding, str, bytes]:
    """The coding, the coder and the body of coded images, checked; nothing is decoded."""
    if len(payload) < _PREFIX.size or payload[:4] != MAGIC:
        raise CodingError(f"these {len(payload)} bytes are no coded images; check the path")
    _, version, header_bytes = _PREFIX.unpack(payload[: _PREFIX.size])
    if version != VERSION:
        raise CodingError(f"version {version} of coded images, but {VERSION} is known; upgrade")
    start, end = _PREFIX.size + header_bytes, len(payload) - _CHECKSUM_BYTES
    if start > end or _checksum(payload[:end]) != payload[end:]:
        raise CodingError(f"the checksum of the coded images is wrong: damaged bytes; {_AGAIN}")
    coding, coder = _parse(payload[_PREFIX.size : start], limit)
    return coding, coder, payload[start:end]


def name_of(coding: ImageCoding) -> str:
    """The name of a coding in `CODINGS`."""
    return next(name for name, kind in CODINGS.items() if isinstance(coding, kind))


def settings_of(coding: ImageCoding) -> dict[str, Any]:
    """The fields of a coding that differ from their defaults, as plain values."""
    found: dict[str, Any] = {}
    for field in fields(coding):  # type: ignore[arg-type]
        value = getattr(coding, field.name)
        if field.default is MISSING or value != field.default:
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def _document(coding: ImageCoding, coder: str) -> dict[str, Any]:
    document = {"coding": name_of(coding), **settings_of(coding)}
    return document if coder == CODERS[0] else {**document, "coder": coder}


def _parse(header: bytes, limit: int) -> tuple[ImageCoding, str]:
    try:
        document = json.loads(header)
        kind, coder = CODINGS[document.pop("coding")], document.pop("coder", CODERS[0])
        shape = tuple(document.pop("shape"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CodingError(f"the header of the coded images makes no sense; {_AGAIN}") from None
    if coder not in CODERS:
        raise CodingError(f"images were coded by {coder!r}, which is unknown; upgrade")
    try:
        check_shape(shape)
        if math.prod(shape) > limit:
            raise CodingError(f"images of {shape}, but at most {limit:,} values; raise the limit")
        return kind(shape=shape, **document), coder  # type: ignore[call-arg]
    except (TypeError, CodingError) as error:
        raise CodingError(f"the header of the coded images makes no sense ({error})") from None


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()
