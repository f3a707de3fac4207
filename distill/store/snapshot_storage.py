"""Expert trajectories in fewer bytes: the first snapshot whole, the others as 16- or 4-bit deltas.

A 16-bit delta is taken to the first kept snapshot, not to the one before: errors do not add up, and
one snapshot is two rows to read however many are kept. A delta is divided by a scale that brings
its largest value to 2^15, rounded to 16 bits, and stored with that scale.

The stated error of a snapshot, for every value: half of the last place at the delta's largest
value (2^-12 of it in float16, 2^-9 in bfloat16), plus the rounding of the sum to float32.
A value whose own delta is small is nearer still, as these are floating-point numbers.

A 4-bit delta is taken to the decoded snapshot before it, in blocks of 64 values with a step each.
"""

from __future__ import annotations

import numpy as np

# Half of the last place in [2^14, 2^15], as a fraction of 2^15.
ROUNDING: dict[str, float] = {"float16": 2.0**-12, "bfloat16": 2.0**-9}

_TOP = 2.0**15

# Covers the rounding of the sum to float32 (2^-24 of it), and bfloat16's way over float32.
_FLOAT32 = 2.0**-23


def encode_delta(first: np.ndarray, snapshot: np.ndarray, storage: str) -> tuple[np.ndarray, float]:
    """The delta from `first` [p] to `snapshot` [p], both float32 and finite, in 16 bits.

    Returns:
        The delta [p] (float16; for bfloat16 its bits as uint16), and its scale.
    """
    delta = snapshot.astype(np.float64) - first
    scale = float(np.abs(delta).max(initial=0.0)) / _TOP
    scaled = delta / scale if scale > 0 else delta
    if storage == "float16":
        return scaled.astype(np.float16), scale
    return _to_bfloat16(scaled), scale


def decode_delta(first: np.ndarray, delta: np.ndarray, scale: float) -> np.ndarray:
    """The snapshot [p] float32 that `encode_delta` was given, within `stated_error`."""
    values = delta if delta.dtype == np.float16 else _from_bfloat16(delta)
    return (first + values.astype(np.float64) * scale).astype(np.float32)


def stated_error(first: np.ndarray, scale: float, storage: str) -> float:
    """The most by which a value of a decoded snapshot can differ from the recorded one."""
    largest = scale * _TOP
    total = float(np.abs(first).max(initial=0.0)) + largest
    return ROUNDING[storage] * largest + _FLOAT32 * total


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round to nearest, ties to even. |values| <= 2^15, so nothing can overflow."""
    # Rounded to float32 first; that double rounding is far below the half place it may move.
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def trajectory_bytes(parameters: int, kept: int, storage: str) -> int:
    """Bytes of one expert's `kept` snapshots of `parameters` values."""
    if storage == "float32" or kept == 0:
        return 4 * parameters * kept
    # The first snapshot has 4 bytes a value; each later one its delta, a scale and its stated
    # error. A block of 4-bit values has a step in float16.
    blocks = block_count(parameters)
    delta = blocks * (BLOCK // 2 + 2) if storage == "int4" else 2 * parameters
    return 4 * parameters + (kept - 1) * (delta + 16)


def share_of_mtt(
    kept: int, storage: str, parameters: int, experts: int = 100, epochs: int = 50
) -> float:
    """Bytes of `experts` experts over those of MTT's buffer, as a fraction.

    MTT keeps 100 experts of 51 float32 snapshots each (Cazenavette et al. 2022, code).
    """
    mtt = 100 * 4 * parameters * (epochs + 1)
    return experts * trajectory_bytes(parameters, kept, storage) / mtt


BLOCK = 64

_LEVELS = 7


def block_count(parameters: int) -> int:
    """Blocks of one snapshot; the last one is filled up with zeros."""
    return -(-parameters // BLOCK)


def encode_nibbles(
    before: np.ndarray, snapshot: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
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
    nearest = values.astype(np.float16)
    larger = np.nextafter(nearest, np.float16(np.inf))
    return np.where(nearest.astype(np.float64) < values, larger, nearest).astype(np.float16)
