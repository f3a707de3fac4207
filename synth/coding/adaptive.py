"""Adaptive arithmetic coding of integer symbols, in contexts of what was coded before.

Symbols are coded place by place, at each place in batches of images. A symbol is a path of yes-or-
no decisions. Each is predicted by a chain of contexts, from few to many: the prediction of one is
the prior of the next, worth `_TRUST` decisions, so that many contexts cost little where there is
little to count. Counts grow behind each batch. All state is integers, so every machine gives the
same bytes; the range coder is the library `constriction`.

Source: Witten, Neal and Cleary 1987 (adaptive arithmetic coding); Teh 2006 (predictions as priors
of longer contexts, here with counts that are kept whole); Bamler 2022 (constriction).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from synth.coding.alphabet import PROBABILITY_BITS, Alphabet
from synth.coding.contexts import ContextModel
from synth.coding.errors import CodingError
from synth.coding.lzma_symbols import Array
from synth.coding.range_coder import WORD, bernoulli, open_reader, write

# What the prior of a context is worth, in decisions: of the first one of a chain, of others.
_FIRST_TRUST, _TRUST = 2, 8

# Images of the first batches of a place, and at most.
_FIRST_BATCH, _LARGEST_BATCH = 16, 256

# No decision is taken for granted: this far from 0 and 1, in units of 2^-16.
_MARGIN = 16

_ONE = 1 << PROBABILITY_BITS

# A symbol is at least one decision, which costs at least -log2(1 - _MARGIN / _ONE) bits.
_MOST_SYMBOLS_OF_A_BIT = _ONE // _MARGIN


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
        order, _, bits, shares = self._in_turn(mixed, self._all_contexts(mixed))
        turn = np.argsort(order)
        return write(bits[turn].astype(np.int32), shares[turn] / _ONE)

    def decode(self, coded: bytes, shape: tuple[int, int]) -> Array:
        """The symbols [n, places] of `encode`.

        Raises:
            CodingError: if constriction is not installed, or the bytes are damaged.
        """
        n, places = shape
        if n * places > _MOST_SYMBOLS_OF_A_BIT * (8 * len(coded) + 8 * WORD):
            raise CodingError(
                f"{len(coded)} bytes cannot hold {n} x {places} symbols: damaged bytes"
            )
        reader = open_reader(coded)
        model = bernoulli()
        symbols = np.full((n, places + 1), self.alphabet.centre)
        nodes = len(self.alphabet.prior)
        counts = [np.zeros((size * nodes, 2), np.int64) for size in self.model.sizes]
        edges = _edges(n, self.groups)
        for place in range(places):
            for first, last in pairwise(edges):
                contexts = self._contexts_at(symbols, place, first, last)
                self._decode_batch(reader, model, contexts, counts, symbols[first:last, place])
        found = self._unmix(symbols[:, :places])
        if self.encode(found) != coded:
            raise CodingError("the coded symbols are not what they decode to: damaged bytes")
        return found

    def lengths(self, symbols: Array) -> Array:
        """What each symbol [n, places] costs when it is coded, in bits, float64.

        Their sum is the length of the stream but for its last word.
        """
        mixed = self._mix(symbols)
        return self._unmix(self._lengths(mixed, self._all_contexts(mixed)))

    def lengths_and_moves(self, symbols: Array, sides: Array) -> tuple[Array, Array]:
        """`lengths`, and how many bits more each symbol's neighbour on one side takes.

        The second is told by the counts of all symbols together, as they are in the end.

        Args:
            symbols: [n, places].
            sides: [n, places], -1 or 1: which neighbour.
        """
        mixed, side = self._mix(symbols), self._mix(sides)
        contexts = self._all_contexts(mixed)
        counts = self._all_counts(mixed, contexts)
        last = len(self.alphabet.nodes) - 1
        beside = np.clip(mixed + side, 0, last)
        moved = self._static(beside, contexts, counts) - self._static(mixed, contexts, counts)
        return self._unmix(self._lengths(mixed, contexts)), self._unmix(moved)

    def _lengths(self, mixed: Array, contexts: Array) -> Array:
        _, chosen, bits, shares = self._in_turn(mixed, contexts)
        cost = -_LOG2[np.where(bits == 1, shares, _ONE - shares)]
        found: Array = np.bincount(chosen, weights=cost, minlength=mixed.size)
        return found.reshape(mixed.shape)

    def _in_turn(self, mixed: Array, contexts: Array) -> tuple[Array, Array, Array, Array]:
        """All decisions: when each is coded, the number of its symbol, its bit, and its share."""
        n, places = mixed.shape
        batch = _batch_numbers(n, places, self.groups)
        depth = self.alphabet.nodes.shape[1]
        orders, numbers, bits, shares = [], [], [], []
        for level in range(depth):
            chosen, node, bit = self._decisions(mixed, level)
            if len(chosen) == 0:
                break
            orders.append((batch.ravel()[chosen] * depth + level) * n + chosen // places)
            numbers.append(chosen)
            bits.append(bit)
            shares.append(self._predict_in_turn(contexts, batch, chosen, node, bit))
        columns = (np.concatenate(column) for column in (orders, numbers, bits, shares))
        order, number, bit, share = columns
        return order, number, bit, share

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

    def _predict_in_turn(
        self, contexts: Array, batch: Array, chosen: Array, node: Array, bit: Array
    ) -> Array:
        """Probability of 1 by what was counted before each decision's batch, in 2^-16."""
        share, when = self.alphabet.prior[node], batch.ravel()[chosen]
        for step, slot in enumerate(self._slots(contexts, chosen, node)):
            count, ones = _counts_before(slot, when, bit)
            share = _blend(share, count, ones, step)
        return np.clip(share, _MARGIN, _ONE - _MARGIN)

    def _all_counts(self, symbols: Array, contexts: Array) -> list[Array]:
        """Decisions and ones of each context, of all symbols: [2, contexts * nodes]."""
        nodes = len(self.alphabet.prior)
        counts = [np.zeros((2, size * nodes), np.int64) for size in self.model.sizes]
        for level in range(self.alphabet.nodes.shape[1]):
            chosen, node, bit = self._decisions(symbols, level)
            if len(chosen) == 0:
                break
            for step, slot in enumerate(self._slots(contexts, chosen, node)):
                size = counts[step].shape[1]
                counts[step][0] += np.bincount(slot, minlength=size)
                counts[step][1] += np.bincount(slot[bit == 1], minlength=size)
        return counts

    def _static(self, symbols: Array, contexts: Array, counts: list[Array]) -> Array:
        found = np.zeros(symbols.size)
        for level in range(self.alphabet.nodes.shape[1]):
            chosen, node, bit = self._decisions(symbols, level)
            if len(chosen) == 0:
                break
            share = self.alphabet.prior[node]
            for step, slot in enumerate(self._slots(contexts, chosen, node)):
                share = _blend(share, counts[step][0][slot], counts[step][1][slot], step)
            share = np.clip(share, _MARGIN, _ONE - _MARGIN)
            found[chosen] -= _LOG2[np.where(bit == 1, share, _ONE - share)]
        return found.reshape(symbols.shape)

    def _decode_batch(
        self, reader: Any, model: Any, contexts: Array, counts: list[Array], found: Array
    ) -> None:
        """Fill `found` [m], and count it; contexts are [2, steps, m]."""
        alphabet = self.alphabet
        state, chosen = np.zeros(len(found), np.int64), np.arange(len(found))
        taken = []
        while len(chosen):
            node = alphabet.node_of[state[chosen]]
            slots = list(self._slots(contexts, chosen, node))
            share = alphabet.prior[node]
            for step, slot in enumerate(slots):
                seen = counts[step][slot]
                share = _blend(share, seen[:, 0], seen[:, 1], step)
            share = np.clip(share, _MARGIN, _ONE - _MARGIN)
            try:
                bit = reader.decode(model, share / _ONE)
            except AssertionError as error:
                raise CodingError(f"the coded symbols make no sense ({error})") from None
            taken.append((slots, bit))
            state[chosen] = alphabet.following[state[chosen], bit]
            ended = state[chosen] < 0
            found[chosen[ended]] = -1 - state[chosen[ended]]
            if (found[chosen[ended]] >= len(alphabet.nodes)).any():
                raise CodingError("a coded symbol is none of the alphabet: damaged bytes")
            chosen = chosen[~ended]
        for slots, bit in taken:
            for step, slot in enumerate(slots):
                np.add.at(counts[step][:, 0], slot, 1)
                np.add.at(counts[step][:, 1], slot, bit)

    def _all_contexts(self, mixed: Array) -> Array:
        """[2, steps, n, places] of symbols that are all known."""
        n, places = mixed.shape
        padded = np.concatenate([mixed, np.full((n, 1), self.alphabet.centre)], axis=1)
        values = np.clip(mixed - self.alphabet.centre, -self.model.cap, self.model.cap)
        ranks = values.reshape(-1, self.groups, places)
        edges = np.array(_edges(n, self.groups)) // self.groups
        done = np.repeat(edges[:-1], np.diff(edges))
        sums = [_running(ranks)[done], _running(np.abs(ranks))[done]]
        total, size = (part.reshape(n, places) for part in sums)
        count = np.repeat(done, self.groups)[:, None]
        near = padded[:, self.model.neighbours] - self.alphabet.centre
        return self.model.contexts(near, np.arange(places), count, total, size)

    def _contexts_at(self, symbols: Array, place: int, first: int, last: int) -> Array:
        """[2, steps, m] of one place of images `first` to `last`; the same as `_all_contexts`."""
        cap, centre = self.model.cap, self.alphabet.centre
        before = np.clip(symbols[:first, place] - centre, -cap, cap).reshape(-1, self.groups)
        repeats = (last - first) // self.groups
        total = np.tile(before.sum(axis=0), repeats)[:, None]
        size = np.tile(np.abs(before).sum(axis=0), repeats)[:, None]
        near = symbols[first:last][:, self.model.neighbours[place : place + 1]] - centre
        count = np.full((last - first, 1), first // self.groups)
        return self.model.contexts(near, np.array([place]), count, total, size)[..., 0]

    def _mix(self, symbols: Array) -> Array:
        """Images in the order of coding: the first of each group, the second of each, ..."""
        n, places = symbols.shape
        return symbols.reshape(self.groups, -1, places).swapaxes(0, 1).reshape(n, places)

    def _unmix(self, mixed: Array) -> Array:
        n, places = mixed.shape
        return mixed.reshape(-1, self.groups, places).swapaxes(0, 1).reshape(n, places)


_LOG2 = np.log2(np.maximum(np.arange(_ONE + 1), 1)) - PROBABILITY_BITS


def _blend(share: Array, count: Array, ones: Array, step: int) -> Array:
    trust = _FIRST_TRUST if step == 0 else _TRUST
    found: Array = (ones * _ONE + trust * share) // (count + trust)
    return found


def _counts_before(slot: Array, when: Array, bit: Array) -> tuple[Array, Array]:
    """Of each decision: how many of its slot were in earlier batches, and how many were 1."""
    batches = int(when.max()) + 1
    key = slot * batches + when
    order = np.argsort(key)
    sorted_key, sorted_slot = key[order], slot[order]
    ones = np.concatenate([[0], np.cumsum(bit[order])])
    at = np.arange(len(key))
    new_batch = np.concatenate([[True], sorted_key[1:] != sorted_key[:-1]])
    new_slot = np.concatenate([[True], sorted_slot[1:] != sorted_slot[:-1]])
    batch_start = np.maximum.accumulate(np.where(new_batch, at, 0))
    slot_start = np.maximum.accumulate(np.where(new_slot, at, 0))
    count, one = np.empty_like(key), np.empty_like(key)
    count[order] = batch_start - slot_start
    one[order] = ones[batch_start] - ones[slot_start]
    return count, one


def _edges(n: int, groups: int) -> list[int]:
    """Where batches start and end: whole ranks of all groups, small ones first."""
    ranks = n // groups
    first, most = max(1, _FIRST_BATCH // groups), max(1, _LARGEST_BATCH // groups)
    edges = [0]
    while edges[-1] < ranks:
        size = max(first, min(edges[-1], most))
        edges.append(min(ranks, edges[-1] + size))
    return [edge * groups for edge in edges]


def _batch_numbers(n: int, places: int, groups: int) -> Array:
    """[n, places]: the number of the batch of each symbol, in the order of coding."""
    edges = _edges(n, groups)
    of_image = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    return np.arange(places) * (len(edges) - 1) + of_image[:, None]


def _running(ranks: Array) -> Array:
    """[ranks + 1, ...]: sums of the first 0, 1, ... ranks."""
    return np.concatenate([np.zeros_like(ranks[:1]), np.cumsum(ranks, axis=0)])
