"""How often each decision was taken in each context, before it is coded."""

from __future__ import annotations

import numpy as np

from synth.coding.lzma_symbols import Array


def add_decisions(counts: Array, slot: Array, bit: Array) -> None:
    """Count decisions in `counts` [slots, 2]."""
    np.add.at(counts[:, 0], slot, 1)
    np.add.at(counts[:, 1], slot, bit)


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
