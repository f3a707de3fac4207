"""Adaptive arithmetic coding of integer symbols, in contexts of what was coded before.

Symbols are coded place by place: at each place one symbol of every image. A context is a number
that encoder and decoder work out alike from the places that are done. Each context counts its
symbols as they come, starting from a prior, so no table has to be sent. All state is integers;
the range coder is the library `constriction`, whose streams are the same on every machine.

Source: Witten, Neal and Cleary 1987 (adaptive arithmetic coding); Bamler 2022 (constriction).
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from synth.coding.errors import CodingError

Array = np.ndarray

# (symbols [n, places] that are filled up to a place, that place) -> contexts [n].
ContextOf = Callable[[Array, int], Array]

# What one symbol adds to its count; the priors are on this scale.
ONE = 1024

# Counts grow by chunks of images: small ones first, where the counts know least.
_FIRST_CHUNK, _LARGEST_CHUNK = 16, 256

_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def prior_counts(spreads: Sequence[int], symbols: int, centre: int) -> Array:
    """Starting counts [contexts, symbols] int64: symbols far from `centre` are rarer.

    Args:
        spreads: of each context, half the steps from the centre after which counts have halved.
        symbols: size of the alphabet.
        centre: the symbol that is expected.
    """
    away = np.abs(np.arange(symbols) - centre)
    rows = [ONE >> np.minimum(2 * away // spread, 20) for spread in spreads]
    return np.maximum(np.stack(rows), 1).astype(np.int64)


def encode(symbols: Array, prior: Array, context_of: ContextOf) -> bytes:
    """Code symbols [n, places], each in [0, prior.shape[1]).

    Raises:
        CodingError: if constriction is not installed.
    """
    library = _library()
    coder = library.stream.queue.RangeEncoder()
    for part, counts, contexts in _parts(symbols, prior, context_of):
        for context in np.unique(contexts):
            model = _model(library, counts[context])
            coder.encode(part[contexts == context].astype(np.int32), model)
    return coder.get_compressed().astype("<u4").tobytes()


def decode(coded: bytes, shape: tuple[int, int], prior: Array, context_of: ContextOf) -> Array:
    """The symbols [n, places] of `encode`.

    Raises:
        CodingError: if constriction is not installed, or the stream ends too early.
    """
    library = _library()
    if len(coded) % 4:
        raise CodingError(f"the coded symbols are {len(coded)} bytes, not a multiple of 4")
    coder = library.stream.queue.RangeDecoder(np.frombuffer(coded, "<u4").astype(np.uint32))
    symbols = np.zeros(shape, np.int64)
    for part, counts, contexts in _parts(symbols, prior, context_of):
        for context in np.unique(contexts):
            chosen = contexts == context
            try:
                part[chosen] = coder.decode(_model(library, counts[context]), int(chosen.sum()))
            except AssertionError as error:
                raise CodingError(f"the coded symbols make no sense ({error})") from None
    if not coder.maybe_exhausted():
        raise CodingError("bytes are left after the last coded symbol")
    return symbols


def lengths(symbols: Array, prior: Array, context_of: ContextOf, around: int = 0) -> Array:
    """What each symbol costs when it is coded, in bits.

    Args:
        symbols: [n, places].
        prior: as for `encode`.
        context_of: as for `encode`.
        around: also the cost of the symbols that lie so much below and above, in its stead.

    Returns:
        float64 [2 * around + 1, n, places], from below to above; symbols outside the alphabet
        cost as much as the last one inside.
    """
    n, places = symbols.shape
    found = np.empty((2 * around + 1, n, places))
    rows = iter(_chunked_rows(n, places))
    for part, counts, contexts in _parts(symbols, prior, context_of):
        bits = np.log2(counts.sum(axis=1, keepdims=True) / counts)
        first, last, place = next(rows)
        for shift in range(-around, around + 1):
            near = np.clip(part + shift, 0, counts.shape[1] - 1)
            found[shift + around, first:last, place] = bits[contexts, near]
    return found


def _chunked_rows(n: int, places: int) -> Iterator[tuple[int, int, int]]:
    for place in range(places):
        first, size = 0, _FIRST_CHUNK
        while first < n:
            yield first, min(first + size, n), place
            first += size
            size = min(2 * size, _LARGEST_CHUNK)


def _parts(
    symbols: Array, prior: Array, context_of: ContextOf
) -> Iterator[tuple[Array, Array, Array]]:
    """Chunks of symbols, a view that a decoder fills, with the counts and contexts they have."""
    counts = prior.copy()
    contexts = np.empty(0, np.int64)
    for first, last, place in _chunked_rows(*symbols.shape):
        if first == 0:
            contexts = context_of(symbols, place)
        part = symbols[first:last, place]
        yield part, counts, contexts[first:last]
        np.add.at(counts, (contexts[first:last], part), ONE)


def _model(library: Any, counts: Array) -> Any:
    # Quotients of integers below 2^53 are rounded alike on every machine.
    shares = counts / counts.sum()
    return library.stream.model.Categorical(shares, perfect=False)


def _library() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise CodingError(
            "images coded as `arithmetic` need constriction, which is not installed; "
            "pip install 'limbeck[compact]'"
        ) from error
    return constriction


def compress(symbols: Array) -> bytes:
    """Symbols below 2^16, [n, places], by LZMA: the way without a library."""
    kind = "<u1" if symbols.max(initial=0) < 256 else "<u2"
    raw = np.ascontiguousarray(symbols.T).astype(kind).tobytes()
    return kind[-1].encode() + lzma.compress(raw, lzma.FORMAT_RAW, filters=_FILTERS)


def expand(coded: bytes, shape: tuple[int, int]) -> Array:
    """The symbols [n, places] of `compress`; never more memory than they take.

    Raises:
        CodingError: if the bytes are damaged or hold another number of symbols.
    """
    wanted = shape[0] * shape[1] * (2 if coded[:1] == b"2" else 1)
    reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        raw = reader.decompress(coded[1:], wanted + 1)
    except lzma.LZMAError as error:
        raise CodingError(f"the coded symbols are damaged ({error})") from None
    if len(raw) != wanted:
        raise CodingError(f"{len(raw)} bytes of symbols, but the images need {wanted}")
    kind = "<u2" if coded[:1] == b"2" else "<u1"
    return np.frombuffer(raw, kind).reshape(shape[::-1]).T.astype(np.int64)
