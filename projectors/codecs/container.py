"""The container of encoded labels: self-describing, with a checksum.

magic "LIMBLAB\\0" | version u16 | header length u32 | body length u64     (little-endian)
header: JSON {"codec": config, "labels": shape}, sorted, no spaces
body: the codec's bytes
SHA-256 of all before it
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from projectors.codecs.base import LabelCodec, Payload
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import LabelSpec

MAGIC = b"LIMBLAB\0"

VERSION = 1

_PREFIX = struct.Struct("<8sHIQ")

_DIGEST_BYTES = 32

# Configs take a few hundred bytes; a longer header is corrupt or malicious.
_HEADER_LIMIT = 1 << 16

_HINT = "fetch or encode it again"


@dataclass(frozen=True)
class Container:
    """An opened container.

    Attributes:
        config: of the codec that wrote it.
        spec: the shape that the labels decode to.
        body: the codec's bytes.
    """

    config: dict[str, Any]
    spec: LabelSpec
    body: memoryview


def pack(codec: LabelCodec, spec: LabelSpec, body: bytes) -> bytes:
    """The container of a codec's bytes."""
    return _seal(_header(codec, spec), body)


def seal(document: dict[str, Any], body: bytes) -> bytes:
    """A container of anything else that gives labels, such as a network.

    Args:
        document: JSON-able; says what the body is.
        body: any bytes.
    """
    return _seal(_text(document), body)


def _seal(header: bytes, body: bytes) -> bytes:
    start = _PREFIX.pack(MAGIC, VERSION, len(header), len(body)) + header
    digest = hashlib.sha256(start)
    digest.update(body)
    return b"".join((start, body, digest.digest()))


def unpack(payload: Payload) -> Container:
    """Open a container of labels, after checking its length and checksum.

    Raises:
        CodecError: as `unseal`, or for a header that does not describe labels.
    """
    document, body = unseal(payload)
    config, spec = _parse(document)
    return Container(config, spec, body)


def unseal(payload: Payload) -> tuple[dict[str, Any], memoryview]:
    """Document and body of a container, after checking its length and checksum.

    Raises:
        CodecError: for bytes that are foreign, too new, cut short, too long or damaged, or whose
            header is invalid.
    """
    view = memoryview(payload).cast("B")
    if len(view) < _PREFIX.size or bytes(view[:8]) != MAGIC:
        raise CodecError(f"these {len(view)} bytes are no encoded labels; check the path")
    _, version, header_bytes, body_bytes = _PREFIX.unpack(view[: _PREFIX.size])
    if version != VERSION:
        raise CodecError(f"version {version} of encoded labels, but {VERSION} is known; upgrade")
    end = _PREFIX.size + header_bytes + body_bytes
    if header_bytes > _HEADER_LIMIT or len(view) != end + _DIGEST_BYTES:
        raise CodecError(
            f"{len(view)} bytes of encoded labels, but they say {end + _DIGEST_BYTES}; {_HINT}"
        )
    if hashlib.sha256(view[:end]).digest() != bytes(view[end:]):
        raise CodecError(f"the checksum of the encoded labels is wrong: damaged bytes; {_HINT}")
    start = _PREFIX.size + header_bytes
    return _document(bytes(view[_PREFIX.size : start])), view[start:end]


def open_body(codec: LabelCodec, payload: Payload, limit: int) -> Container:
    """Open a container of `codec`, after checking its stated sizes: memory is allocated by them.

    Args:
        codec: the codec that must have written it.
        payload: the container.
        limit: most bytes that the decoded logits may take.

    Raises:
        CodecError: as `unpack`, for another codec, and for a shape that its bytes cannot hold.
    """
    container = unpack(payload)
    if container.config != codec.config():
        raise CodecError(
            f"labels encoded by {container.config}, but {codec.config()} was asked to decode them; "
            "use projectors.codecs.decode"
        )
    spec = container.spec
    if spec.decoded_bytes > limit:
        raise CodecError(
            f"labels of {spec.decoded_bytes} bytes, but the limit is {limit}; raise limit"
        )
    needed = codec.body_bytes(spec)
    if needed is not None and needed != len(container.body):
        raise CodecError(
            f"{len(container.body)} bytes for {spec}, which takes {needed}: a false shape; {_HINT}"
        )
    return container


def container_bytes(codec: LabelCodec, spec: LabelSpec, body_bytes: int) -> int:
    """Length of the container of `body_bytes` bytes."""
    return _PREFIX.size + len(_header(codec, spec)) + body_bytes + _DIGEST_BYTES


def _header(codec: LabelCodec, spec: LabelSpec) -> bytes:
    return _text({"codec": codec.config(), "labels": asdict(spec)})


def _text(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _document(header: bytes) -> dict[str, Any]:
    try:
        document = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise _broken_header(error) from error
    if not isinstance(document, dict):
        raise CodecError(f"the header of the encoded labels is no table; {_HINT}")
    return document


def _parse(document: dict[str, Any]) -> tuple[dict[str, Any], LabelSpec]:
    try:
        config, spec = document["codec"], LabelSpec(**document["labels"])
    except CodecError:
        raise
    except (TypeError, KeyError) as error:
        raise _broken_header(error) from error
    if not isinstance(config, dict):
        raise CodecError(f"the header of the encoded labels names no codec; {_HINT}")
    return config, spec


def _broken_header(error: Exception) -> CodecError:
    reason = " ".join(str(error).split())
    return CodecError(f"the header of the encoded labels is broken ({reason}); {_HINT}")


def inflate(packed: bytes | memoryview, most: int, what: str) -> bytes:
    """Decompress to at most `most` bytes: a few kilobytes could otherwise fill the memory.

    Raises:
        CodecError: for a stream that is broken, cut short, or would give more; `what` names it.
    """
    stream = zlib.decompressobj()
    try:
        # One byte more reveals a longer stream, and lets a complete one reach its checksum.
        content = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise CodecError(f"a broken stream of {what} ({error}); encode it again") from error
    if not stream.eof or len(content) > most:
        raise CodecError(
            f"the stream of {what} is cut short, or gives more than {most} bytes; encode it again"
        )
    return content
