"""Adaptive arithmetic coding of integer symbols, in contexts of what was coded before.

Symbols are coded place by place, at each place in batches of images. A symbol is a path of yes-or-
no decisions. Each is predicted by a chain of contexts, from few to many: the prediction of one is
the prior of the next, worth some decisions, so that many contexts cost little where there is
little to count. Counts grow behind each batch. All state is integers, so every machine gives the
same bytes; the range coder is the library `constriction`.

Source: Witten, Neal and Cleary 1987 (adaptive arithmetic coding); Teh 2006 (predictions as priors
of longer contexts, here with counts that are kept whole); Bamler 2022 (constriction).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from synth.coding.alphabet import CERTAIN, PROBABILITY_BITS, Alphabet
from synth.coding.contexts import ContextModel
from synth.coding.counts import (
    add_decisions,
    batch_edges,
    blend,
    counts_before,
    no_counts,
    predicted,
    uncertain,
)
from synth.coding.decoding import decode_symbols
from synth.coding.lzma_symbols import Array
from synth.coding.range_coder import write

# Symbols whose contexts are worked out at once: what a coder takes in memory hangs on this, and not
# on how many images there are.
_PART = 1 << 16


@dataclass(frozen=True)
class _Decided:
    """The decisions of a run of places.

    Attributes:
        run: the places.
        order: when each decision is coded, within the run.
        symbols: of which symbol [n, run] it is, flat.
        bits: how it is decided.
        shares: the probability of 1, in 2^-16.
    """

    run: slice
    order: Array
    symbols: Array
    bits: Array
    shares: Array


@dataclass(frozen=True)
class Coder:
    """How symbols [n, places] are coded.

    Attributes:
        alphabet: of the symbols.
        model: the contexts.
        groups: the images are so many runs of equal length, such as classes; a divisor of n.
    """

    alphabet: Alphabet
    model: ContextModel
    groups: int = 1

    def encode(self, symbols: Array) -> bytes:
        """Code symbols [n, places].

        Raises:
            CodingError: if constriction is not installed.
        """
        mixed = self._mix(symbols)
        bits, shares = [], []
        for part in self._in_turn(mixed, self._no_counts()):
            turn = np.argsort(part.order)
            bits.append(part.bits[turn].astype(np.uint8))
            shares.append(part.shares[turn].astype(np.uint16))
        return write(np.concatenate(bits), np.concatenate(shares))

    def decode(self, coded: bytes, shape: tuple[int, int]) -> Array:
        """The symbols [n, places] of `encode`.

        Raises:
            CodingError: if constriction is not installed, or the bytes are damaged.
        """
        found = decode_symbols(coded, shape, self.alphabet, self.model, self.groups)
        return self._unmix(found)

    def lengths(self, symbols: Array) -> Array:
        """What each symbol [n, places] costs when it is coded, in bits, float64.

        Their sum is the length of the stream but for its last word.
        """
        mixed = self._mix(symbols)
        return self._unmix(self._lengths(mixed, self._no_counts()))

    def lengths_and_moves(self, symbols: Array, sides: Array) -> tuple[Array, Array]:
        """`lengths`, and how many bits more each symbol's neighbour on one side takes.

        The second is told by the counts of all symbols together, as they are in the end.

        Args:
            symbols: [n, places].
            sides: [n, places], -1 or 1: which neighbour.
        """
        mixed, side = self._mix(symbols), self._mix(sides)
        counts = self._no_counts()
        lengths = self._lengths(mixed, counts)
        beside = np.clip(mixed + side, 0, len(self.alphabet.nodes) - 1)
        moved, padded = np.empty(mixed.shape), self._padded(mixed)
        for run in _runs(*mixed.shape):
            contexts = self._contexts_of(padded, run)
            stays, moves = (
                self._static(part[:, run], contexts, counts) for part in (mixed, beside)
            )
            moved[:, run] = moves - stays
        return self._unmix(lengths), self._unmix(moved)

    def _lengths(self, mixed: Array, counts: list[Array]) -> Array:
        """Of each symbol; `counts` are in the end those of all symbols."""
        found = np.empty(mixed.shape)
        for part in self._in_turn(mixed, counts):
            cost = -_LOG2[np.where(part.bits == 1, part.shares, CERTAIN - part.shares)]
            size = found[:, part.run].size
            lengths = np.bincount(part.symbols, weights=cost, minlength=size)
            found[:, part.run] = lengths.reshape(len(mixed), -1)
        return found

    def _no_counts(self) -> list[Array]:
        return no_counts(self.model.sizes, len(self.alphabet.prior))

    def _in_turn(self, mixed: Array, counts: list[Array]) -> Iterator[_Decided]:
        """All decisions, in runs of places; each run is counted in `counts` before the next."""
        n, places = mixed.shape
        depth, padded = self.alphabet.nodes.shape[1], self._padded(mixed)
        for run in _runs(n, places):
            symbols, contexts = mixed[:, run], self._contexts_of(padded, run)
            batch = _batch_numbers(n, symbols.shape[1], self.groups).ravel()
            columns: list[tuple[Array, ...]] = []
            for level in range(depth):
                chosen, node, bit = self._decisions(symbols, level)
                if len(chosen) == 0:
                    break
                when = batch[chosen]
                share = self._predict(contexts, when, (chosen, node, bit), counts)
                order = (when * depth + level) * n + chosen // symbols.shape[1]
                columns.append((order, chosen, bit, share))
            yield _Decided(run, *(np.concatenate(column) for column in zip(*columns, strict=True)))

    def _decisions(self, symbols: Array, level: int) -> tuple[Array, Array, Array]:
        """Which symbols have a decision of this level, with node and bit."""
        flat = symbols.ravel()
        node = self.alphabet.nodes[:, level][flat]
        chosen = np.flatnonzero(node >= 0)
        return chosen, node[chosen], self.alphabet.bits[:, level][flat[chosen]]

    def _slots(self, contexts: Array, chosen: Array, node: Array) -> Iterator[Array]:
        """The numbers of the counts of decisions, from the first to the last of the chain."""
        nodes = len(self.alphabet.prior)
        sign = self.alphabet.is_sign[node].astype(np.int64)
        flat = contexts.reshape(2, contexts.shape[1], -1)
        for step in range(contexts.shape[1]):
            kind = flat[sign, step, chosen] if sign.any() else flat[0, step, chosen]
            yield kind * nodes + node

    def _predict(
        self,
        contexts: Array,
        when: Array,
        decisions: tuple[Array, Array, Array],
        counts: list[Array],
    ) -> Array:
        """Probability of 1 by what was counted before each decision's batch, in 2^-16.

        Args:
            contexts: [2, steps, n, run] of all symbols of a run.
            when: number of each decision's batch in the run.
            decisions: of one level, as `_decisions` has them.
            counts: before the run; these decisions are added.
        """
        chosen, node, bit = decisions
        share = self.alphabet.prior[node]
        for step, slot in enumerate(self._slots(contexts, chosen, node)):
            count, ones = counts_before(slot, when, bit)
            known = counts[step]
            share = blend(share, known[0][slot] + count, known[1][slot] + ones, step)
            add_decisions(known, slot, bit)
        return uncertain(share)

    def _static(self, symbols: Array, contexts: Array, counts: list[Array]) -> Array:
        found = np.zeros(symbols.size)
        for level in range(self.alphabet.nodes.shape[1]):
            chosen, node, bit = self._decisions(symbols, level)
            if len(chosen) == 0:
                break
            slots = self._slots(contexts, chosen, node)
            share = predicted(self.alphabet.prior[node], slots, counts)
            found[chosen] -= _LOG2[np.where(bit == 1, share, CERTAIN - share)]
        return found.reshape(symbols.shape)

    def _padded(self, mixed: Array) -> Array:
        """Symbols [n, places + 1]: the last column stands for what lies outside an image."""
        return np.pad(mixed, ((0, 0), (0, 1)), constant_values=self.alphabet.centre)

    def _contexts_of(self, padded: Array, run: slice) -> Array:
        """[2, steps, n, run] of the symbols of a run of places, where all are known."""
        cap = self.model.cap
        values = np.clip(padded[:, run] - self.alphabet.centre, -cap, cap)
        ranks = values.reshape(-1, self.groups, values.shape[1])
        edges = batch_edges(len(ranks), self.groups)
        done = np.repeat(edges[:-1], np.diff(edges))
        sums = [_running(ranks)[done], _running(np.abs(ranks))[done]]
        total, size = (part.reshape(values.shape) for part in sums)
        count = np.repeat(done, self.groups)[:, None]
        near = padded[:, self.model.neighbours[run]] - self.alphabet.centre
        places = np.arange(run.start, run.stop)
        return self.model.by_neighbours(near, places) + self.model.by_images(count, total, size)

    def _mix(self, symbols: Array) -> Array:
        """Images in the order of coding: the first of each group, the second of each, ..."""
        n, places = symbols.shape
        return symbols.reshape(self.groups, -1, places).swapaxes(0, 1).reshape(n, places)

    def _unmix(self, mixed: Array) -> Array:
        n, places = mixed.shape
        return mixed.reshape(-1, self.groups, places).swapaxes(0, 1).reshape(n, places)


_LOG2 = np.log2(np.maximum(np.arange(CERTAIN + 1), 1)) - PROBABILITY_BITS


def _runs(n: int, places: int) -> Iterator[slice]:
    """Places in runs of so many that the symbols of n images are worked out at once."""
    size = max(1, _PART // n)
    for start in range(0, places, size):
        yield slice(start, min(places, start + size))


def _batch_numbers(n: int, places: int, groups: int) -> Array:
    """[n, places]: the number of the batch of each symbol, in the order of coding."""
    edges = batch_edges(n // groups, groups)
    of_image = np.repeat(np.arange(len(edges) - 1), groups * np.diff(edges))
    return np.arange(places) * (len(edges) - 1) + of_image[:, None]


def _running(ranks: Array) -> Array:
    """[ranks + 1, ...]: sums of the first 0, 1, ... ranks."""
    return np.concatenate([np.zeros_like(ranks[:1]), np.cumsum(ranks, axis=0)])
