"""Deflated bytes, unpacked no further than they may go."""

from __future__ import annotations

import zlib

from projectors.codecs.errors import CodecError


def inflate(packed: bytes | memoryview, most: int, what: str) -> bytes:
    """At most `most` bytes: a payload of a few kilobytes could else fill the memory.

    Raises:
        CodecError: for a stream that is broken, cut short, or would give more; `what` names it.
    """
    stream = zlib.decompressobj()
    try:
        # One byte more shows a stream that goes on, and lets one that ends reach its checksum.
        content = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise CodecError(f"a broken stream of {what} ({error}); encode it again") from error
    if not stream.eof or len(content) > most:
        raise CodecError(
            f"the stream of {what} is cut short, or gives more than {most} bytes; encode it again"
        )
    return content
