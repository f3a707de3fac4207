"""The range coder for yes-or-no decisions, by the library `constriction`.

Its streams are the same on every machine. Source: Bamler 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from synth.coding.errors import CodingError
from synth.coding.lzma_symbols import Array

# Bytes of a word of the range coder.
WORD = 4


def write(message: Array, shares: Array) -> bytes:
    """The range coder's words, big-endian, without bytes at the end that the reader can spare.

    Args:
        message: decisions, int32, 0 or 1.
        shares: float64, of each the probability of 1: a multiple of 2^-16 inside (0, 1).

    Raises:
        CodingError: if constriction is not installed.
    """
    coder = _library().stream.queue.RangeEncoder()
    coder.encode(message, bernoulli(), shares)
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
    try:
        found = open_reader(coded).decode(bernoulli(), shares)
    except AssertionError:
        return False
    return np.array_equal(found, message)


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
