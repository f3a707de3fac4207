"""Entropy coders of quantised numbers: two libraries, both in the extra `compact`.

Neither is imported before it is used.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from projectors.errors import ProjectorError

_LEVEL = 19

_WORD = np.dtype("<u4")

_FREQUENCY = np.dtype("<u2")

# The frequencies of the symbols sum to about this, so that none exceeds 16 bits.
_TOTAL_FREQUENCY = 65_000


@dataclass(frozen=True)
class Coder:
    """An entropy coder.

    Attributes:
        mark: its number in files; never reused for another.
        encode: symbols in [0, count), uint8, and count -> bytes.
        decode: bytes, count, number of symbols -> symbols.
    """

    mark: int
    encode: Callable[[np.ndarray, int], bytes]
    decode: Callable[[bytes, int, int], np.ndarray]


def _zstandard_encode(symbols: np.ndarray, count: int) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=_LEVEL).compress(_narrow(symbols, count).tobytes())


def _zstandard_decode(content: bytes, count: int, length: int) -> np.ndarray:
    import zstandard

    size = _narrow(np.zeros(length, dtype=np.uint8), count).size
    try:
        raw = zstandard.ZstdDecompressor().decompress(content, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ProjectorError(f"the coded numbers are damaged ({error})") from error
    if len(raw) != size:
        raise ProjectorError(f"the coded numbers are {len(raw)} bytes, but {size} are needed")
    return _widen(np.frombuffer(raw, dtype=np.uint8), count, length)


def _narrow(symbols: np.ndarray, count: int) -> np.ndarray:
    """Pack two symbols into a byte if there are at most 16 different ones."""
    if count > 16:
        return symbols
    padded = np.append(symbols, np.zeros(len(symbols) % 2, dtype=np.uint8))
    return padded[0::2] * np.uint8(16) + padded[1::2]


def _widen(content: np.ndarray, count: int, length: int) -> np.ndarray:
    if count > 16:
        return content
    return np.stack([content >> 4, content & 15], axis=1).reshape(-1)[:length]


def _constriction_encode(symbols: np.ndarray, count: int) -> bytes:
    import constriction

    counts = np.bincount(symbols, minlength=count)
    frequencies = np.ceil(counts * (_TOTAL_FREQUENCY / counts.sum())).astype(_FREQUENCY)
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(symbols.astype(np.int32), _model(frequencies))
    return frequencies.tobytes() + coder.get_compressed().astype(_WORD).tobytes()


def _constriction_decode(content: bytes, count: int, length: int) -> np.ndarray:
    import constriction

    start = count * _FREQUENCY.itemsize
    if len(content) < start or (len(content) - start) % _WORD.itemsize:
        raise ProjectorError(f"the coded numbers are {len(content)} bytes, which cannot be")
    frequencies = np.frombuffer(content[:start], dtype=_FREQUENCY)
    if not frequencies.any():
        raise ProjectorError(f"the coded numbers are none of the {length} that are needed")
    coded = np.frombuffer(content[start:], dtype=_WORD).astype(np.uint32)
    decoder = constriction.stream.queue.RangeDecoder(coded)
    return decoder.decode(_model(frequencies), length).astype(np.uint8)


def _model(frequencies: np.ndarray) -> object:
    import constriction

    # The model needs a probability above zero for symbols that do not occur, too.
    weights = frequencies.astype(np.float64) + 1 / 256
    return constriction.stream.model.Categorical(weights / weights.sum(), perfect=False)


CODERS = {
    "zstandard": Coder(1, _zstandard_encode, _zstandard_decode),
    "constriction": Coder(2, _constriction_encode, _constriction_decode),
}


def encode_symbols(symbols: np.ndarray, count: int, coder: str) -> bytes:
    """Code symbols in [0, count), uint8 [n].

    Raises:
        ProjectorError: if the coder's library is not installed.
    """
    try:
        return CODERS[coder].encode(symbols, count)
    except ImportError as error:
        raise _not_installed(coder) from error


def decode_symbols(content: bytes, count: int, length: int, coder: str) -> np.ndarray:
    """The inverse of `encode_symbols`.

    Raises:
        ProjectorError: if the bytes are damaged, or the coder's library is not installed.
    """
    try:
        return CODERS[coder].decode(content, count, length)
    except ImportError as error:
        raise _not_installed(coder) from error


def _not_installed(coder: str) -> ProjectorError:
    return ProjectorError(
        f"{coder}, which codes these numbers, is not installed; "
        "pip install 'limbeck[compact]', or store the projector in float32"
    )
