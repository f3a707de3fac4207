"""The decoder of adaptive arithmetic coding: the symbols of a stream, batch after batch.

All images of a place have their neighbours decoded before, so that these are worked out at once;
of earlier images, only what the batch before added.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from synth.coding.alphabet import CERTAIN, Alphabet
from synth.coding.contexts import ContextModel
from synth.coding.counts import MARGIN, add_decisions, batch_edges, no_counts, predicted
from synth.coding.errors import CodingError
from synth.coding.lzma_symbols import Array
from synth.coding.range_coder import WORD, bernoulli, open_reader, write

# A symbol is at least one decision, which costs at least -log2(1 - MARGIN / CERTAIN) bits.
_MOST_SYMBOLS_OF_A_BIT = CERTAIN // MARGIN


def decode_symbols(
    coded: bytes, shape: tuple[int, int], alphabet: Alphabet, model: ContextModel, groups: int
) -> Array:
    """The symbols [n, places] of a stream, in the order of coding.

    Args:
        coded: by `Coder.encode`.
        shape: n and places.
        alphabet: of the symbols.
        model: the contexts.
        groups: the images are so many runs of equal length.

    Raises:
        CodingError: if constriction is not installed, or the bytes are damaged.
    """
    n, places = shape
    if n * places > _MOST_SYMBOLS_OF_A_BIT * (8 * len(coded) + 8 * WORD):
        raise CodingError(f"{len(coded)} bytes cannot hold {n} x {places} symbols: damaged bytes")
    stream = _Stream(open_reader(coded), alphabet, no_counts(model.sizes, len(alphabet.prior)))
    # The last row stands for what lies outside an image.
    symbols = np.full((places + 1, n), alphabet.centre)
    edges = batch_edges(n // groups, groups)
    for place in range(places):
        near = symbols[model.neighbours[place]].T[:, None] - alphabet.centre
        by_neighbours = model.by_neighbours(near, np.array([place]))[..., 0]
        ranks = by_neighbours.reshape(*by_neighbours.shape[:2], -1, groups)
        total = size = np.zeros((groups, 1), np.int64)
        for first, last in pairwise(edges):
            by_images = model.by_images(np.array([[first]]), total, size)[..., 0]
            batch = ranks[:, :, first:last] + by_images[:, :, None]
            found = stream.take(batch.reshape(*batch.shape[:2], -1))
            symbols[place, first * groups : last * groups] = found
            values = np.minimum(np.maximum(found - alphabet.centre, -model.cap), model.cap)
            of_group = values.reshape(-1, groups)
            total = total + of_group.sum(axis=0)[:, None]
            size = size + np.abs(of_group).sum(axis=0)[:, None]
    if stream.coded_again() != coded:
        raise CodingError("the coded symbols are not what they decode to: damaged bytes")
    return symbols[:places].T


@dataclass(frozen=True)
class _Stream:
    """The decisions of a stream.

    Attributes:
        reader: of its words.
        alphabet: of the symbols.
        counts: of each step of the chain.
        bits: what was decided, in batches.
        shares: of each decision, the probability of 1, in 2^-16.
    """

    reader: Any
    alphabet: Alphabet
    counts: list[Array]
    bits: list[Array] = field(default_factory=list)
    shares: list[Array] = field(default_factory=list)

    def take(self, contexts: Array) -> Array:
        """The symbols [m] that come next; contexts are [2, steps, m]."""
        alphabet, nodes = self.alphabet, len(self.alphabet.prior)
        m = contexts.shape[2]
        # Of each step: contexts of magnitudes, then those of signs.
        chain = contexts.swapaxes(0, 1).reshape(-1, 2 * m) * nodes
        found = np.empty(m, np.int64)
        state, chosen = np.zeros(m, np.int64), np.arange(m)
        slots, bits = [], []
        while len(chosen):
            node = alphabet.node_of[state]
            slot = chain.take(alphabet.is_sign[node] * m + chosen, axis=1) + node
            bit = self._decide(node, slot)
            slots.append(slot)
            bits.append(bit)
            state = alphabet.following[state, bit]
            ended = state < 0
            if ended.any():
                found[chosen[ended]] = -1 - state[ended]
                chosen, state = chosen[~ended], state[~ended]
        if (found >= len(alphabet.nodes)).any():
            raise CodingError("a coded symbol is none of the alphabet: damaged bytes")
        decided = np.concatenate(bits)
        for counts, slot in zip(self.counts, np.concatenate(slots, axis=1), strict=True):
            add_decisions(counts, slot, decided)
        return found

    def _decide(self, node: Array, slot: Array) -> Array:
        """How decisions are taken, by counts of their slots [steps, m] before this batch."""
        share = predicted(self.alphabet.prior[node], slot, self.counts)
        try:
            bit = self.reader.decode(bernoulli(), share / CERTAIN)
        except AssertionError as error:
            raise CodingError(f"the coded symbols make no sense ({error})") from None
        self.bits.append(bit.astype(np.uint8))
        self.shares.append(share.astype(np.uint16))
        return bit.astype(np.int64)

    def coded_again(self) -> bytes:
        """The bytes of what was decided."""
        return write(np.concatenate(self.bits), np.concatenate(self.shares))
