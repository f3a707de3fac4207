"""Expert trajectories in an eighth of their bytes: 4-bit deltas from snapshot to snapshot.

A delta is taken to the snapshot before as a reader will decode it, not as it was recorded, so the
rounding of one delta is put right by the next and errors do not add up. It is cut into blocks of
64 values; each block is divided by a step of its own, at most 1/7 of the block's largest value
(rounded up to 16 bits), and rounded to a whole number from -7 to 7. A snapshot is read by adding
up the deltas before it.

The stated error of a snapshot, for every value: half of the largest block's step, plus the
rounding of the sum to float32.
"""

from __future__ import annotations

import numpy as np

BLOCK = 64
_LEVELS = 7
# Covers the rounding of a sum to float32, as in `distill.store.deltas`.
_FLOAT32 = 2.0**-23


def block_count(parameters: int) -> int:
    """Blocks of one snapshot; the last one is filled up with zeros."""
    return -(-parameters // BLOCK)


def encode_nibbles(before: np.ndarray, snapshot: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The delta from `before` [p] to `snapshot` [p], both float32 and finite, in 4 bits.

    Args:
        before: the snapshot before, as `decode_nibbles` gives it.
        snapshot: the next one.

    Returns:
        Packed whole numbers [b * 32] uint8, two to a byte and the earlier one in the low half;
        the steps [b] float16 of the b blocks, as fractions of the largest; and the largest.
    """
    blocks = np.zeros((block_count(len(before)), BLOCK))
    blocks.reshape(-1)[: len(before)] = snapshot.astype(np.float64) - before
    wanted = np.abs(blocks).max(axis=1) / _LEVELS
    scale = float(wanted.max(initial=0.0))
    if scale == 0.0:
        scale = 1.0
    steps = _rounded_up(wanted / scale)
    divisors = np.where(steps > 0, steps, 1).astype(np.float64) * scale
    whole = np.rint(blocks / divisors[:, None]).astype(np.int8).reshape(-1, 2) + 8
    packed = (whole[:, 0] | (whole[:, 1] << 4)).astype(np.uint8)
    return packed, steps, scale


def decode_nibbles(
    before: np.ndarray, packed: np.ndarray, steps: np.ndarray, scale: float
) -> np.ndarray:
    """The snapshot [p] float32 that `encode_nibbles` was given, within `nibble_error`."""
    whole = np.stack([packed & 15, packed >> 4], axis=1).reshape(len(steps), BLOCK)
    blocks = (whole.astype(np.float64) - 8) * (steps.astype(np.float64) * scale)[:, None]
    return (before + blocks.reshape(-1)[: len(before)]).astype(np.float32)


def nibble_error(snapshot: np.ndarray, steps: np.ndarray, scale: float) -> float:
    """The most by which a value decoded for `snapshot` [p] can differ from it."""
    half = 0.5 * scale * float(steps.astype(np.float64).max(initial=0.0))
    return half + _FLOAT32 * (float(np.abs(snapshot).max(initial=0.0)) + half)


def _rounded_up(values: np.ndarray) -> np.ndarray:
    """The least float16 that is not below each of `values` in [0, 1]: no delta exceeds 7 steps."""
    found = values.astype(np.float16)
    larger = np.nextafter(found, np.float16(np.inf))
    return np.where(found.astype(np.float64) < values, larger, found).astype(np.float16)
