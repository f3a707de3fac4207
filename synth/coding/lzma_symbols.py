"""Integer symbols by LZMA: the way without a library."""

from __future__ import annotations

import lzma

import numpy as np

from synth.coding.errors import CodingError

Array = np.ndarray

_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def compress(symbols: Array) -> bytes:
    """Symbols from 0 to 65,535, [n, places], place by place."""
    kind = "<u1" if symbols.max(initial=0) < 256 else "<u2"
    raw = np.ascontiguousarray(symbols.T).astype(kind).tobytes()
    return kind[-1].encode() + lzma.compress(raw, lzma.FORMAT_RAW, filters=_FILTERS)


def expand(coded: bytes, shape: tuple[int, int], count: int) -> Array:
    """The symbols [n, places] of `compress`; never more memory than they take.

    Args:
        coded: the bytes.
        shape: [n, places].
        count: size of the alphabet.

    Raises:
        CodingError: if the bytes are damaged, hold another number of symbols, or others.
    """
    if coded[:1] not in (b"1", b"2"):
        raise CodingError("the coded symbols do not say their width: damaged or foreign bytes")
    width = int(coded[:1])
    wanted = shape[0] * shape[1] * width
    reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        raw = reader.decompress(coded[1:], wanted + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise CodingError(f"the coded symbols are damaged ({error})") from None
    if len(raw) != wanted or not reader.eof or reader.unused_data:
        raise CodingError(f"{len(raw)} bytes of symbols, but the images need exactly {wanted}")
    found = np.frombuffer(raw, f"<u{width}").reshape(shape[::-1]).T.astype(np.int64)
    if found.max(initial=0) >= count:
        raise CodingError(f"a symbol is {found.max()}, but there are {count}: damaged bytes")
    return found
