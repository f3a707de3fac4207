"""A range coder of small integers in many contexts: interleaved rANS in exact integer arithmetic.

`lanes` coders take the symbols in turn, so NumPy works on all of them at once. Every context has a
frequency table of its own; a symbol costs log2(1 / frequency) bits, far less than one if it is
nearly certain. Blocks are coded one after the other, so the contexts of a block may depend on
those before it. Source: Duda 2013 (asymmetric numeral systems), Giesen 2014 (interleaving).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from projectors.codecs.errors import CodecError

PRECISION = 14

_TOTAL = 1 << PRECISION

_MIN_STATE = 1 << 16

_WORD_BITS = np.uint64(16)

_MASK = np.uint64(0xFFFF)

Array = np.ndarray

Block = tuple[Array, Array]


def frequencies(counts: Array) -> Array:
    """Frequency tables [contexts, symbols] uint16 from counts; rows sum to 2^14.

    A symbol that occurs keeps at least 1, one that does not gets 0; a context without symbols
    gives symbol 0 all of it.

    >>> frequencies(np.array([[3, 1, 0], [0, 0, 0]])).tolist()
    [[12288, 4096, 0], [16384, 0, 0]]
    """
    counts = counts.astype(np.int64)
    counts[counts.sum(axis=1) == 0, 0] = 1
    totals = counts.sum(axis=1, keepdims=True)
    tables = np.where(counts > 0, np.maximum(1, counts * _TOTAL // totals), 0)
    for row in tables:
        # The most frequent symbols absorb the rounding error of the sum.
        while (rest := _TOTAL - int(row.sum())) != 0:
            largest = int(row.argmax())
            row[largest] += rest if rest > 0 else max(rest, 1 - int(row[largest]))
    return tables.astype(np.uint16)


def encode_blocks(backwards: Iterable[Block], tables: Array, lanes: int) -> bytes:
    """Code blocks of (symbols, contexts), both [m] integers, with the tables of `frequencies`.

    Args:
        backwards: the blocks, the one that will be decoded last first.
        tables: [contexts, symbols]; every symbol of a block must occur in its context's table.
        lanes: interleaved coders, at least 1; each costs 4 bytes.

    Returns:
        The final states, uint32, and then 16-bit words.
    """
    starts = _starts(tables)
    wide = tables.astype(np.uint64)
    states = np.full(lanes, _MIN_STATE, np.uint64)
    steps: list[Array] = []
    for symbols, contexts in backwards:
        for first in reversed(range(0, len(symbols), lanes)):
            part, context = symbols[first : first + lanes], contexts[first : first + lanes]
            frequency, start = wide[context, part], starts[context, part]
            state = states[: len(part)]
            full = state >= frequency << np.uint64(32 - PRECISION)
            steps.append((state[full] & _MASK).astype("<u2"))
            state = np.where(full, state >> _WORD_BITS, state)
            states[: len(part)] = (
                (state // frequency << np.uint64(PRECISION)) + state % frequency + start
            )
    words = b"".join(step.tobytes() for step in reversed(steps))
    return states.astype("<u4").tobytes() + words


class Decoder:
    """Decodes the blocks that `encode_blocks` coded, in their order.

    Raises:
        CodecError: if the bytes are too few for the states.
    """

    def __init__(self, coded: memoryview, tables: Array, lanes: int) -> None:
        if len(coded) < 4 * lanes or len(coded) % 2:
            raise _broken()
        self._states = np.frombuffer(coded, "<u4", lanes).astype(np.uint64)
        self._words = np.frombuffer(coded, "<u2", offset=4 * lanes).astype(np.uint64)
        self._next = 0
        self._tables = tables.astype(np.uint64)
        self._starts = _starts(tables)
        symbols = np.arange(tables.shape[1], dtype=np.uint8)
        self._symbols = np.stack([np.repeat(symbols, row) for row in tables.astype(np.int64)])

    def block(self, contexts: Array) -> Array:
        """The symbols [m] uint8 of the next block, whose contexts are [m].

        Raises:
            CodecError: if the words end too early.
        """
        lanes = len(self._states)
        parts = [
            self._step(contexts[first : first + lanes]) for first in range(0, len(contexts), lanes)
        ]
        return np.concatenate(parts)

    def finish(self) -> None:
        """Check that all words were read.

        Raises:
            CodecError: if words are left, or a coder does not end in its initial state.
        """
        if self._next != len(self._words) or bool((self._states != _MIN_STATE).any()):
            raise _broken()

    def _step(self, contexts: Array) -> Array:
        states = self._states[: len(contexts)]
        slots = states & np.uint64(_TOTAL - 1)
        symbols = self._symbols[contexts, slots.astype(np.int64)]
        frequency = self._tables[contexts, symbols]
        states = frequency * (states >> np.uint64(PRECISION)) + slots
        states -= self._starts[contexts, symbols]
        low = states < _MIN_STATE
        end = self._next + int(low.sum())
        if end > len(self._words):
            raise _broken()
        states[low] = states[low] << _WORD_BITS | self._words[self._next : end]
        self._next = end
        self._states[: len(contexts)] = states
        return symbols


def check_tables(tables: Array) -> None:
    """Refuse tables whose rows do not sum to 2^14.

    Raises:
        CodecError: for such tables.
    """
    if not tables.size or bool((tables.astype(np.int64).sum(axis=1) != _TOTAL).any()):
        raise CodecError("broken frequencies in encoded labels; encode them again")


def _starts(tables: Array) -> Array:
    wide = tables.astype(np.uint64)
    return wide.cumsum(axis=1, dtype=np.uint64) - wide


def _broken() -> CodecError:
    return CodecError("the stream in encoded labels does not give what they promise; encode again")
