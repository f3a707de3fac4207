"""How often each decision was taken in each context, before it is coded, and what that predicts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from synth.coding.alphabet import CERTAIN
from synth.coding.lzma_symbols import Array

# What the prior of a context is worth, in decisions: of the first one of a chain, of others.
_FIRST_TRUST, _TRUST = 2, 8

# Images of the first batches of a place, and at most.
_FIRST_BATCH, _LARGEST_BATCH = 16, 256

# No decision is taken for granted: this far from 0 and 1, in units of 2^-16.
MARGIN = 16


def batch_edges(ranks: int, groups: int) -> list[int]:
    """Where batches start and end, in ranks: a rank is an image of each group; small ones first."""
    first, most = max(1, _FIRST_BATCH // groups), max(1, _LARGEST_BATCH // groups)
    edges = [0]
    while edges[-1] < ranks:
        size = max(first, min(edges[-1], most))
        edges.append(min(ranks, edges[-1] + size))
    return edges


def no_counts(contexts: tuple[int, ...], nodes: int) -> list[Array]:
    """Decisions and ones, [2, contexts * nodes] for each step of the chain, still zero."""
    return [np.zeros((2, size * nodes), np.int64) for size in contexts]


def add_decisions(counts: Array, slot: Array, bit: Array) -> None:
    """Count decisions in `counts` [2, slots]; slot and bit are int64."""
    np.add.at(counts[0], slot, 1)
    np.add.at(counts[1], slot, bit)


def blend(share: Array, count: Array, ones: Array, step: int) -> Array:
    """A probability of 1 that is the prior of a longer context, with what was counted there."""
    trust = _FIRST_TRUST if step == 0 else _TRUST
    found: Array = (ones * CERTAIN + trust * share) // (count + trust)
    return found


def uncertain(share: Array) -> Array:
    """Probabilities that take no decision for granted."""
    found: Array = np.minimum(np.maximum(share, MARGIN), CERTAIN - MARGIN)
    return found


def predicted(share: Array, slots: Iterable[Array], counts: list[Array]) -> Array:
    """Probabilities of 1 by all that was counted in the slots of a chain, in 2^-16.

    Args:
        share: the prior of each decision.
        slots: of each step, those of the decisions.
        counts: of each step.
    """
    for step, slot in enumerate(slots):
        share = blend(share, counts[step][0][slot], counts[step][1][slot], step)
    return uncertain(share)


def counts_before(slot: Array, when: Array, bit: Array) -> tuple[Array, Array]:
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
