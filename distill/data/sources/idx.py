"""Reader of idx files of bytes (the format of MNIST and Fashion-MNIST), plain or gzipped."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from distill.data.splits import DataError

_GZIP_MAGIC = b"\x1f\x8b"

_UNSIGNED_BYTE = 8

_CHUNK = 1 << 20

# Deflate cannot expand one byte to more than 1,032.
_LARGEST_EXPANSION = 1032


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read one idx file of unsigned bytes.

    The header is read first and compared with what the file can hold; never more than the
    promised bytes are kept, so neither a lying header nor a gzip bomb fills the memory.

    Args:
        path: a plain or gzipped file (told apart by its first bytes, not by its name).
        dimensions: how many axes are needed (3 for images, 1 for labels).

    Returns:
        uint8 array with the header's shape.

    Raises:
        DataError: when the file cannot be read, is no idx file of bytes, has other dimensions,
            or holds more or fewer bytes than its header says.
    """
    try:
        with path.open("rb") as plain:
            gzipped = plain.read(2) == _GZIP_MAGIC
            plain.seek(0)
            stored = path.stat().st_size
            if not gzipped:
                return _read(plain, path, dimensions, stored)
            with gzip.open(plain) as stream:
                return _read(stream, path, dimensions, stored * _LARGEST_EXPANSION)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{str(path)!r} cannot be read ({error}), a whole idx file is needed; fetch it again"
        ) from error


def _read(stream: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int, most: int) -> np.ndarray:
    """Read header and values; `most` is what the stream can hold at the very most, in bytes."""
    shape = _read_header(stream, path, dimensions)
    promised = math.prod(shape)
    header = 4 + 4 * dimensions
    if header + promised > most:
        _refuse_length(path, shape, f"at most {max(most - header, 0)}")
    values = bytearray()
    # One byte more than promised is read: it shows a file that is too long, and makes gzip
    # reach its end and compare its checksum.
    while chunk := stream.read(min(_CHUNK, promised + 1 - len(values))):
        values += chunk
    if len(values) != promised:
        came = f"only {len(values)}" if len(values) < promised else "more"
        _refuse_length(path, shape, came)
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _read_header(stream: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int) -> tuple[int, ...]:
    header = stream.read(4 + 4 * dimensions)
    needed = f"an idx file of bytes with {dimensions} dimensions is needed"
    if len(header) < 4 or header[:2] != b"\x00\x00" or header[2] != _UNSIGNED_BYTE:
        raise DataError(
            f"{str(path)!r} starts with {header[:4].hex() or 'nothing'}, {needed} "
            f"(0000 08 {dimensions:02x}); name the right file"
        )
    if header[3] != dimensions:
        raise DataError(
            f"{str(path)!r} has {header[3]} dimensions, {needed}; "
            "are the image and label files swapped?"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{str(path)!r} ends inside its header, {needed}; fetch it again")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 0 in shape:
        raise DataError(f"{str(path)!r} is empty (shape {shape}), {needed}; fetch it again")
    return shape


def _refuse_length(path: Path, shape: tuple[int, ...], came: str) -> NoReturn:
    raise DataError(
        f"{str(path)!r} promises {math.prod(shape)} values (shape {shape}) but holds {came}, "
        "exactly the promised length is needed; fetch it again"
    )
