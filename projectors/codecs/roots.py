"""Square roots of probabilities on a uniform grid, coded in the context of earlier epochs."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from projectors.codecs.arrays import BodyReader, halves_to_bytes
from projectors.codecs.base import DECODED_LIMIT, Payload, describe
from projectors.codecs.container import open_body, pack
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import (
    Labels,
    LabelSpec,
    check_real,
    from_probabilities,
    log_probability_rows,
)
from projectors.codecs.rans import Decoder, check_tables, encode_blocks, frequencies

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
        probabilities = log_probability_rows(labels).exp()
        levels = (probabilities.sqrt() / self.step).round().to(torch.uint8).numpy()
        by_epoch = levels.reshape(spec.epochs, -1)
        bodies = [
            self._body(spec, by_epoch, probabilities.reshape(spec.epochs, -1), choice)
            for choice in range(len(_EDGES))
        ]
        return pack(self, spec, min(bodies, key=len))

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
        rows = []
        for _ in range(spec.epochs):
            of = seen.contexts()
            found = decoder.block(of)
            seen.add(found)
            rows.append(_cells(found, of, means, contexts))
        decoder.finish()
        values = torch.cat(rows).reshape(spec.labels, spec.classes)
        values = values / values.sum(dim=1, keepdim=True).clamp_min(torch.finfo().tiny)
        return from_probabilities(values, spec)

    def _body(
        self, spec: LabelSpec, levels: np.ndarray, probabilities: Tensor, choice: int
    ) -> bytes:
        seen = _Seen(levels.shape[1], choice)
        blocks = []
        for row in levels:
            blocks.append((row, seen.contexts()))
            seen.add(row)
        of = np.stack([contexts for _, contexts in blocks])
        contexts = len(_EDGES[choice]) + 2
        joint = of.astype(np.int64) * self.levels + levels
        counts = np.bincount(joint.ravel(), minlength=contexts * self.levels)
        counts = counts.reshape(contexts, self.levels)
        tables = frequencies(counts)
        bits = (counts * -np.log2(np.maximum(tables, 1) / 2.0**14)).sum()
        lanes = int(np.clip(bits / 8 / _BYTES_PER_LANE, 1, min(_MOST_LANES, levels.shape[1])))
        table = zlib.compress(tables.astype("<u2").tobytes(), 9)
        means = halves_to_bytes(_means(levels, of, probabilities, contexts, self.levels), "means")
        head = _HEAD.pack(spec.epochs, spec.images, spec.classes, choice, lanes, len(table))
        return head + table + means + encode_blocks(blocks, tables, lanes)

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
        self._sums = np.zeros(places, np.int64)
        self._epochs = 0

    def contexts(self) -> np.ndarray:
        """[places] int64: 0 in the first epoch, else 1 + how many edges the mean lies above."""
        if not self._epochs:
            return np.zeros(len(self._sums), np.int64)
        return 1 + np.searchsorted(self._edges * self._epochs, 8 * self._sums, side="left")

    def add(self, levels: np.ndarray) -> None:
        """Count an epoch's levels [places]."""
        self._sums += levels
        self._epochs += 1


def _means(
    levels: np.ndarray, of: np.ndarray, probabilities: Tensor, contexts: int, count: int
) -> Tensor:
    """Mean probability of level 0 in each context, then of the levels 1 ... count - 1."""
    cells = np.where(levels == 0, of, contexts + levels.astype(np.int64) - 1).ravel()
    size = contexts + count - 1
    sums = np.bincount(cells, weights=probabilities.numpy().ravel(), minlength=size)
    return torch.from_numpy(sums / np.maximum(np.bincount(cells, minlength=size), 1))


def _cells(levels: np.ndarray, of: np.ndarray, means: Tensor, contexts: int) -> Tensor:
    """The probability that each level stands for, before a label is divided by its sum."""
    cells = np.where(levels == 0, of, contexts + levels.astype(np.int64) - 1)
    return means[torch.from_numpy(cells)]
