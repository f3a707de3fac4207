"""The range coder for yes-or-no decisions, by the library `constriction`.

Its streams are the same on every machine. Source: Bamler 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from synth.coding.alphabet import CERTAIN
from synth.coding.errors import CodingError
from synth.coding.lzma_symbols import Array

# Bytes of a word of the range coder.
WORD = 4

# Decisions that are handed to the coder at once, 12 bytes each.
_PART = 1 << 20


def write(message: Array, shares: Array) -> bytes:
    """The range coder's words, big-endian, without bytes at the end that the reader can spare.

    Args:
        message: decisions, uint8, 0 or 1.
        shares: uint16, of each the probability of 1, in units of 2^-16 and not 0.

    Raises:
        CodingError: if constriction is not installed.
    """
    coder = _library().stream.queue.RangeEncoder()
    model = bernoulli()
    for decisions, probabilities in _parts(message, shares):
        coder.encode(decisions, model, probabilities)
    coded: bytes = coder.get_compressed().astype(">u4").tobytes()
    # Any number in the coder's last interval means the same, and the reader takes zeros for what
    # is missing: try the numbers that end in the most zeros.
    number = int.from_bytes(coded, "big")
    for spared in range(min(WORD, len(coded)), 0, -1):
        shorter = -(-number >> 8 * spared)
        size = len(coded) - spared
        if shorter.bit_length() <= 8 * size:
            found = shorter.to_bytes(size, "big")
            if _reads(found, message, shares):
                return found
    return coded


def _reads(coded: bytes, message: Array, shares: Array) -> bool:
    reader, model = open_reader(coded), bernoulli()
    try:
        return all(
            np.array_equal(reader.decode(model, probabilities), decisions)
            for decisions, probabilities in _parts(message, shares)
        )
    except AssertionError:
        return False


def _parts(message: Array, shares: Array) -> Iterator[tuple[Array, Array]]:
    """Decisions int32 and probabilities float64, as the library wants them."""
    for start in range(0, len(message), _PART):
        part = slice(start, start + _PART)
        yield message[part].astype(np.int32), shares[part] / CERTAIN


def open_reader(coded: bytes) -> Any:
    """What reads the bytes of `write`.

    Raises:
        CodingError: if constriction is not installed.
    """
    padded = coded + bytes(-len(coded) % WORD)
    return _library().stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))


def bernoulli() -> Any:
    """The model of a decision, whose probability of 1 comes with each."""
    # Probabilities are multiples of 2^-16, so their floats are exact on every machine.
    return _library().stream.model.Bernoulli(perfect=False)


def _library() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise CodingError(
            "images coded as `arithmetic` need constriction, which is not installed; "
            "pip install 'limbeck[compact]'"
        ) from error
    return constriction
