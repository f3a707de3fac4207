"""Square roots of probabilities on a uniform grid, coded in the context of earlier epochs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from projectors.codecs.arrays import BodyReader, halves_to_bytes
from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import open_body, pack
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import (
    DTYPES,
    Labels,
    LabelSpec,
    check_real,
    epochs_of,
    from_probabilities,
    log_probability_rows,
)
from projectors.codecs.rans import Block, Decoder, check_tables, encode_blocks, frequencies

_HEADER = struct.Struct("<IIIBHH")

# Thresholds between contexts, by context model: mean level of a class in the earlier epochs of its
# image, in eighths.
_THRESHOLDS = ((), (0, 4, 16, 48), (0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192))

_HINT = "encode them again"

_MAX_LANES = 1 << 15

# A lane costs four bytes, so it should code many times that.
_BYTES_PER_LANE = 400


@dataclass(frozen=True)
class Roots(LabelCodec):
    """sqrt(p) of every probability p, rounded to multiples of `step` and entropy-coded.

    Near a label p, KL(p || p') is 2 sum (sqrt p - sqrt p')^2: in square roots, and only there, a
    uniform grid has the same divergence everywhere. Small probabilities round to 0 and
    cost next to nothing, so this keeps as many classes of each label as that label needs. A level
    is coded in the context of its class's mean level in the earlier epochs at the same position,
    which should therefore be the same image: labels that hardly change between epochs are almost
    free. A level decodes to the mean of the probabilities rounded to it, as that minimises the KL
    divergence; level 0 has a mean for each context.

    Error: before each label is divided by its sum, |sqrt p' - sqrt p| <= step for every class;
    after it, the Hellinger distance is at most 2 sqrt(k) * step, both up to float16. Probabilities
    are at the labels' temperature. The size depends on the labels.

    >>> import torch
    >>> labels = Labels(torch.tensor([[[0.50, 0.25, 0.24, 0.01]]]).log())
    >>> Roots(0.1).decode(Roots(0.1).encode(labels)).probabilities().round(decimals=3)
    tensor([[[0.5000, 0.2450, 0.2450, 0.0100]]])

    Attributes:
        step: width of the grid, in [1/254, 1).
    """

    codec_id: ClassVar[str] = "roots"
    step: float

    def __post_init__(self) -> None:
        check_real("step", self.step, 1 / 254, 1.0, closed=True)

    @property
    def levels(self) -> int:
        """Number of levels of sqrt(p) in [0, 1]."""
        return round(1 / self.step) + 2

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> None:
        """None: it depends on the labels."""

    @override
    def encode(self, labels: Labels) -> bytes:
        spec = labels.spec
        levels = np.empty((spec.epochs, spec.images * spec.classes), np.uint8)
        for row, epoch in zip(levels, epochs_of(labels), strict=True):
            row[:] = self._quantise(epoch).numpy().ravel()
        counted = [self._count(levels, choice) for choice in range(len(_THRESHOLDS))]
        # The counts give the size under each context model; only the best one is coded.
        choice = int(np.argmin([_bits(counts) + 64 * len(counts) for counts in counted]))
        tables = frequencies(counted[choice])
        lanes = _bits(counted[choice]) / 8 / _BYTES_PER_LANE
        lanes = int(np.clip(lanes, 1, min(_MAX_LANES, levels.shape[1])))
        table = zlib.compress(tables.astype("<u2").tobytes(), 9)
        means = halves_to_bytes(self._means(levels, labels, choice), "means")
        head = _HEADER.pack(spec.epochs, spec.images, spec.classes, choice, lanes, len(table))
        coded = encode_blocks(_Backwards(levels, choice), tables, lanes)
        return pack(self, spec, head + table + means + coded)

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec, body = container.spec, container.body
        if len(body) < _HEADER.size:
            raise CodecError(f"encoded labels end too early; {_HINT}")
        *shape, choice, lanes, table_bytes = _HEADER.unpack(body[: _HEADER.size])
        if shape != [spec.epochs, spec.images, spec.classes]:
            raise CodecError(f"labels coded for {shape}, not for {spec}: a false shape; {_HINT}")
        if choice >= len(_THRESHOLDS) or not lanes:
            raise CodecError(f"encoded labels name no way of coding; {_HINT}")
        contexts = len(_THRESHOLDS[choice]) + 2
        tables, body = self._tables(body[_HEADER.size :], table_bytes, contexts)
        means = BodyReader(body).probabilities(contexts + self.levels - 1)
        decoder = Decoder(body[2 * len(means) :], tables, lanes)
        seen = _LevelHistory(spec.images * spec.classes, choice)
        one = replace(spec, epochs=1)
        logits = torch.empty(spec.epochs, spec.images, spec.classes, dtype=DTYPES[spec.dtype])
        for row in logits:
            context = seen.contexts()
            levels = decoder.block(context)
            seen.add(levels)
            values = _decoded(levels, context, means, contexts).reshape(spec.images, spec.classes)
            values = values / values.sum(dim=1, keepdim=True).clamp_min(torch.finfo().tiny)
            row.copy_(from_probabilities(values, one).logits[0])
        decoder.finish()
        return Labels(logits, spec.temperature)

    def _quantise(self, labels: Labels) -> Tensor:
        """Levels [n, k] of one epoch, uint8."""
        return (_probabilities(labels).sqrt() / self.step).round().to(torch.uint8)

    def _count(self, levels: np.ndarray, choice: int) -> np.ndarray:
        """How often each level occurs in each context of a context model."""
        seen = _LevelHistory(levels.shape[1], choice)
        size = (len(_THRESHOLDS[choice]) + 2) * self.levels
        counts = np.zeros(size, np.int64)
        for row in levels:
            joint = seen.contexts().astype(np.uint16) * np.uint16(self.levels) + row
            counts += np.bincount(joint, minlength=size)
            seen.add(row)
        return counts.reshape(-1, self.levels)

    def _means(self, levels: np.ndarray, labels: Labels, choice: int) -> Tensor:
        """Mean probability of level 0 in each context, then of the levels 1 and above."""
        contexts = len(_THRESHOLDS[choice]) + 2
        seen = _LevelHistory(levels.shape[1], choice)
        size = contexts + self.levels - 1
        sums, counts = np.zeros(size), np.zeros(size, np.int64)
        for row, epoch in zip(levels, epochs_of(labels), strict=True):
            cells = _mean_indices(row, seen.contexts(), contexts)
            weights = _probabilities(epoch).numpy().ravel()
            sums += np.bincount(cells, weights=weights, minlength=size)
            counts += np.bincount(cells, minlength=size)
            seen.add(row)
        return torch.from_numpy(sums / np.maximum(counts, 1))

    def _tables(self, body: memoryview, size: int, contexts: int) -> tuple[np.ndarray, memoryview]:
        expected = 2 * contexts * self.levels
        try:
            stream = zlib.decompressobj()
            raw = stream.decompress(body[:size], expected + 1)
        except zlib.error as error:
            raise CodecError(f"broken frequencies in encoded labels ({error})") from error
        if len(raw) != expected or not stream.eof or len(body) < size + 2 * contexts:
            raise CodecError(f"broken frequencies in encoded labels; {_HINT}")
        tables = np.frombuffer(raw, "<u2").reshape(contexts, self.levels)
        check_tables(tables)
        rest = body[size:]
        if len(rest) < 2 * (contexts + self.levels - 1):
            raise CodecError(f"encoded labels end too early; {_HINT}")
        return tables, rest


class _LevelHistory:
    """Sums of the levels of earlier epochs, and the contexts that they give."""

    def __init__(self, positions: int, choice: int) -> None:
        self._thresholds = np.array(_THRESHOLDS[choice], np.int64)
        self._sums = np.zeros(positions, np.uint32)
        self._epochs = 0

    def contexts(self) -> np.ndarray:
        """[positions] uint8: 0 in the first epoch, else 1 + the thresholds below the mean."""
        if not self._epochs:
            return np.zeros(len(self._sums), np.uint8)
        # Sums are small integers: a table of contexts is faster than a search for each.
        sums = np.arange(int(self._sums.max()) + 1) * 8
        context_of_sum = 1 + np.searchsorted(self._thresholds * self._epochs, sums, side="left")
        return context_of_sum.astype(np.uint8)[self._sums]

    def add(self, levels: np.ndarray) -> None:
        """Add an epoch's levels [positions]."""
        self._sums += levels
        self._epochs += 1

    def remove(self, levels: np.ndarray) -> None:
        """Remove the epoch that was added last."""
        self._sums -= levels
        self._epochs -= 1


class _Backwards:
    """The blocks of all epochs, last one first, with the contexts of one in memory at a time."""

    def __init__(self, levels: np.ndarray, choice: int) -> None:
        self._levels, self._choice = levels, choice

    def __iter__(self) -> Iterator[Block]:
        seen = _LevelHistory(self._levels.shape[1], self._choice)
        for row in self._levels:
            seen.add(row)
        for row in self._levels[::-1]:
            seen.remove(row)
            yield row, seen.contexts()


def _probabilities(labels: Labels) -> Tensor:
    return log_probability_rows(labels).exp()


def _bits(counts: np.ndarray) -> float:
    """Bits of entropy-coded levels with these counts."""
    return float((counts * -np.log2(np.maximum(frequencies(counts), 1) / 2.0**14)).sum())


def _mean_indices(levels: np.ndarray, context: np.ndarray, contexts: int) -> np.ndarray:
    """The index of each level's mean: that of its context for level 0, else its own."""
    return np.where(levels == 0, context, contexts - 1 + levels.astype(np.uint16))


def _decoded(levels: np.ndarray, context: np.ndarray, means: Tensor, contexts: int) -> Tensor:
    """The probability of each level, before a label is divided by its sum."""
    return torch.from_numpy(means.numpy()[_mean_indices(levels, context, contexts)])
