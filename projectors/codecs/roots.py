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

from projectors.codecs.arrays import BodyReader, halves_to_bytes
from projectors.codecs.base import DECODED_LIMIT, Payload, describe
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

_HEAD = struct.Struct("<IIIBHH")

# Mean level of a class in the earlier epochs of its image, in eighths, that parts two contexts.
_EDGES = ((), (0, 4, 16, 48), (0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192))

_AGAIN = "encode them again"

_MOST_LANES = 1 << 15

# A lane costs four bytes, so it should code many times that.
_BYTES_PER_LANE = 400


@dataclass(frozen=True)
class Roots:
    """sqrt(p) of every probability p, rounded to multiples of `step` and entropy-coded.

    Near a label p, KL(p || p') is 2 sum (sqrt p - sqrt p')^2: in square roots, and only there, a
    uniform grid spends its bits where a student sees them. Small probabilities round to 0 and
    cost next to nothing, so this keeps as many classes of each label as that label needs. A level
    is coded by its frequency among the levels whose class had the same mean level in the earlier
    epochs of the same place, which therefore should be an image: labels of an image that hardly
    change are almost free. A level stands for the mean probability of what it was made of, as
    that minimises the KL divergence; level 0 has a mean for each context.

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
        """Levels that sqrt(p) in [0, 1] can have."""
        return round(1 / self.step) + 2

    def config(self) -> dict[str, Any]:
        """See `LabelCodec.config`."""
        return describe(self)

    def body_bytes(self, spec: LabelSpec) -> None:
        """None: the labels decide."""

    def encode(self, labels: Labels) -> bytes:
        """See `LabelCodec.encode`."""
        spec = labels.spec
        levels = np.empty((spec.epochs, spec.images * spec.classes), np.uint8)
        for row, epoch in zip(levels, epochs_of(labels), strict=True):
            row[:] = self._quantise(epoch).numpy().ravel()
        counted = [self._count(levels, choice) for choice in range(len(_EDGES))]
        # The tables of a way of coding say what it takes; only the best one is coded.
        choice = int(np.argmin([_bits(counts) + 64 * len(counts) for counts in counted]))
        tables = frequencies(counted[choice])
        lanes = _bits(counted[choice]) / 8 / _BYTES_PER_LANE
        lanes = int(np.clip(lanes, 1, min(_MOST_LANES, levels.shape[1])))
        table = zlib.compress(tables.astype("<u2").tobytes(), 9)
        means = halves_to_bytes(self._means(levels, labels, choice), "means")
        head = _HEAD.pack(spec.epochs, spec.images, spec.classes, choice, lanes, len(table))
        coded = encode_blocks(_Backwards(levels, choice), tables, lanes)
        return pack(self, spec, head + table + means + coded)

    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        """See `LabelCodec.decode`."""
        container = open_body(self, payload, limit)
        spec, body = container.spec, container.body
        if len(body) < _HEAD.size:
            raise CodecError(f"encoded labels end too early; {_AGAIN}")
        *shape, choice, lanes, table_bytes = _HEAD.unpack(body[: _HEAD.size])
        if shape != [spec.epochs, spec.images, spec.classes]:
            raise CodecError(f"labels coded for {shape}, not for {spec}: a false shape; {_AGAIN}")
        if choice >= len(_EDGES) or not lanes:
            raise CodecError(f"encoded labels name no way of coding; {_AGAIN}")
        contexts = len(_EDGES[choice]) + 2
        tables, body = self._tables(body[_HEAD.size :], table_bytes, contexts)
        means = BodyReader(body).probabilities(contexts + self.levels - 1)
        decoder = Decoder(body[2 * len(means) :], tables, lanes)
        seen = _Seen(spec.images * spec.classes, choice)
        one = replace(spec, epochs=1)
        logits = torch.empty(spec.epochs, spec.images, spec.classes, dtype=DTYPES[spec.dtype])
        for row in logits:
            of = seen.contexts()
            found = decoder.block(of)
            seen.add(found)
            values = _cells(found, of, means, contexts).reshape(spec.images, spec.classes)
            values = values / values.sum(dim=1, keepdim=True).clamp_min(torch.finfo().tiny)
            row.copy_(from_probabilities(values, one).logits[0])
        decoder.finish()
        return Labels(logits, spec.temperature)

    def _quantise(self, labels: Labels) -> Tensor:
        """Levels [n, k] of one epoch, uint8."""
        return (_probabilities(labels).sqrt() / self.step).round().to(torch.uint8)

    def _count(self, levels: np.ndarray, choice: int) -> np.ndarray:
        """How often each level occurs in each context of a way of coding."""
        seen = _Seen(levels.shape[1], choice)
        size = (len(_EDGES[choice]) + 2) * self.levels
        counts = np.zeros(size, np.int64)
        for row in levels:
            joint = seen.contexts().astype(np.uint16) * np.uint16(self.levels) + row
            counts += np.bincount(joint, minlength=size)
            seen.add(row)
        return counts.reshape(-1, self.levels)

    def _means(self, levels: np.ndarray, labels: Labels, choice: int) -> Tensor:
        """Mean probability of level 0 in each context, then of the levels 1 and above."""
        contexts = len(_EDGES[choice]) + 2
        seen = _Seen(levels.shape[1], choice)
        size = contexts + self.levels - 1
        sums, counts = np.zeros(size), np.zeros(size, np.int64)
        for row, epoch in zip(levels, epochs_of(labels), strict=True):
            cells = _cell_numbers(row, seen.contexts(), contexts)
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
            raise CodecError(f"broken frequencies in encoded labels; {_AGAIN}")
        tables = np.frombuffer(raw, "<u2").reshape(contexts, self.levels)
        check_tables(tables)
        rest = body[size:]
        if len(rest) < 2 * (contexts + self.levels - 1):
            raise CodecError(f"encoded labels end too early; {_AGAIN}")
        return tables, rest


class _Seen:
    """Sums of the levels of earlier epochs, and the contexts that they give."""

    def __init__(self, places: int, choice: int) -> None:
        self._edges = np.array(_EDGES[choice], np.int64)
        self._sums = np.zeros(places, np.uint32)
        self._epochs = 0

    def contexts(self) -> np.ndarray:
        """[places] uint8: 0 in the first epoch, else 1 + how many edges the mean lies above."""
        if not self._epochs:
            return np.zeros(len(self._sums), np.uint8)
        # Sums are small integers, so the context of each is looked up instead of searched for.
        sums = np.arange(int(self._sums.max()) + 1) * 8
        found = 1 + np.searchsorted(self._edges * self._epochs, sums, side="left")
        return found.astype(np.uint8)[self._sums]

    def add(self, levels: np.ndarray) -> None:
        """Count an epoch's levels [places]."""
        self._sums += levels
        self._epochs += 1

    def remove(self, levels: np.ndarray) -> None:
        """Forget the epoch that was counted last."""
        self._sums -= levels
        self._epochs -= 1


class _Backwards:
    """The blocks of all epochs, the last one first; the contexts of one at a time are in memory."""

    def __init__(self, levels: np.ndarray, choice: int) -> None:
        self._levels, self._choice = levels, choice

    def __iter__(self) -> Iterator[Block]:
        seen = _Seen(self._levels.shape[1], self._choice)
        for row in self._levels:
            seen.add(row)
        for row in self._levels[::-1]:
            seen.remove(row)
            yield row, seen.contexts()


def _probabilities(labels: Labels) -> Tensor:
    return log_probability_rows(labels).exp()


def _bits(counts: np.ndarray) -> float:
    """Bits that levels so frequent take."""
    return float((counts * -np.log2(np.maximum(frequencies(counts), 1) / 2.0**14)).sum())


def _cell_numbers(levels: np.ndarray, of: np.ndarray, contexts: int) -> np.ndarray:
    """Which mean each level has: that of its context for level 0, else its own."""
    return np.where(levels == 0, of, contexts - 1 + levels.astype(np.uint16))


def _cells(levels: np.ndarray, of: np.ndarray, means: Tensor, contexts: int) -> Tensor:
    """The probability that each level stands for, before a label is divided by its sum."""
    return torch.from_numpy(means.numpy()[_cell_numbers(levels, of, contexts)])
