"""A product quantiser: each label as a few words, from codebooks learned on the labels.

Body: header | zlib(mean float16 [k], scales float32 [r], directions int8 [r, k], words int8 [w, r])
| zlib(frequencies uint16) | interleaved rANS of the words' numbers, epoch by epoch, part by part.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from projectors.codecs.arrays import BodyReader, halves_to_bytes
from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import inflate, open_body, pack
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import (
    DTYPES,
    Labels,
    LabelSpec,
    check_integer,
    epochs_of,
    from_rows,
    logit_rows,
)
from projectors.codecs.rans import Block, Decoder, check_tables, encode_blocks, frequencies
from projectors.codecs.words import (
    balanced_order,
    learn_words,
    least_divergent,
    nearest_words,
    part_widths,
)

_HEADER = struct.Struct("<IIIBHII")

_LEVELS = 127

_MAX_WORDS = 256

# Context models: the part alone, or with the word of the same part in the epoch before.
_MODELS = 2

# Of the second model; each takes 16 KiB while labels are decoded.
_MAX_CONTEXTS = 4096

_MAX_LANES = 1 << 15

# A lane costs four bytes, so it should code many times that.
_BYTES_PER_LANE = 400

_HINT = "encode them again"


@dataclass(frozen=True)
class ProductQuantised(LabelCodec):
    """The nearest of words^parts labels to each label, as the numbers of its words.

    Labels are shifted to mean 0, which leaves their softmax unchanged, and projected on the `rank`
    directions in which they vary most. These are allotted to the parts so that all vary alike, and
    the words of a part are the centres of k-means on its coordinates: the parametric form of
    optimised product quantisation (Jegou et al. 2011; Ge et al. 2013). A label gets not the words
    nearest to it, but those that lose least of it in KL divergence, to second order, which takes
    a third to a half off the divergence at the same bytes. Directions and words are kept in 8 bits;
    the words' numbers are entropy-coded, in the context of the word of the same part in the epoch
    before where that takes fewer bytes.

    Error: not bounded for one label. What lies off the plane is lost, and what lies between words.
    The words are a fixed cost of about rank (classes + words) bytes, so the codec pays
    for many labels. With fewer classes than `rank` or `parts`, there are as many as there can be.

    >>> import torch
    >>> logits = torch.tensor([[[4.0, 0.0, -4.0], [2.0, 0.0, -2.0]]])
    >>> codec = ProductQuantised(parts=1, words=2)
    >>> codec.decode(codec.encode(Labels(logits))).logits.round(decimals=1) + 0.0
    tensor([[[ 4.,  0., -4.],
             [ 2.,  0., -2.]]])

    Attributes:
        parts: words of a label, at least 1.
        words: of each part's codebook, 2 to 256.
        rank: directions, at least 1.
        seed: of the start of k-means.
    """

    codec_id: ClassVar[str] = "product"
    parts: int = 16
    words: int = 16
    rank: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("parts", self.parts, 1)
        check_integer("words", self.words, 2)
        check_integer("rank", self.rank, 1)
        check_integer("seed", self.seed, 0)
        if self.words > _MAX_WORDS:
            raise CodecError(f"words={self.words}, but at most {_MAX_WORDS} fit; raise parts")

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> None:
        """None: it depends on the labels."""

    @override
    def encode(self, labels: Labels) -> bytes:
        spec = labels.spec
        rank, parts = self._shape(spec)
        plane = _Plane.fit(labels, rank, parts)
        points = torch.cat([plane.coordinates(epoch) for epoch in epochs_of(labels)])
        codebooks = [
            learn_words(own, self.words, self.seed)
            for own in points.split(part_widths(rank, parts), dim=1)
        ]
        scaled, levels = plane.with_words(torch.cat(codebooks, dim=1))
        points = points / (plane.scales * scaled.scales)
        numbers = _numbers(labels, points, scaled, levels, parts)
        choice, table, lanes, tables = self._cheapest(numbers)
        books = zlib.compress(scaled.to_bytes() + levels.numpy().tobytes(), 9)
        sizes = (choice, lanes, len(books), len(table))
        head = _HEADER.pack(spec.epochs, spec.images, spec.classes, *sizes)
        coded = encode_blocks(_Backwards(numbers, self.words, choice), tables, lanes)
        return pack(self, spec, b"".join((head, books, table, coded)))

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec, body = container.spec, container.body
        rank, parts = self._shape(spec)
        if len(body) < _HEADER.size:
            raise CodecError(f"encoded labels end too early; {_HINT}")
        *shape, choice, lanes, books, table = _HEADER.unpack(body[: _HEADER.size])
        if shape != [spec.epochs, spec.images, spec.classes]:
            raise CodecError(f"labels coded for {shape}, not for {spec}: a false shape; {_HINT}")
        contexts = self._contexts(parts, choice)
        if choice >= _MODELS or contexts > _MAX_CONTEXTS or not lanes:
            raise CodecError(f"encoded labels name no way of coding; {_HINT}")
        rest = body[_HEADER.size :]
        size = 2 * spec.classes + rank * (4 + spec.classes + self.words)
        reader = BodyReader(memoryview(_inflated(rest[:books], size, "words")))
        plane = _Plane.read(reader, rank, spec.classes)
        codebooks = reader.integers("i1", self.words, rank).float() / _LEVELS
        raw = _inflated(rest[books : books + table], 2 * contexts * self.words, "frequencies")
        tables = np.frombuffer(raw, "<u2").reshape(contexts, self.words)
        check_tables(tables)
        decoder = Decoder(rest[books + table :], tables, lanes)
        logits = torch.empty(spec.epochs, spec.images, spec.classes, dtype=DTYPES[spec.dtype])
        before = None
        one = LabelSpec(1, spec.images, spec.classes, spec.dtype, spec.temperature)
        for row in logits:
            contexts_now = _contexts_of(before, spec.images, parts, self.words, choice)
            before = decoder.block(contexts_now).reshape(parts, spec.images).T
            points = _points(torch.from_numpy(before.astype(np.int64)), codebooks)
            row.copy_(from_rows(plane.rows(points), one).logits[0])
        decoder.finish()
        return Labels(logits, spec.temperature)

    def _shape(self, spec: LabelSpec) -> tuple[int, int]:
        """Directions and parts for labels of a shape."""
        # Labels of mean 0 vary in one direction less than they have classes.
        rank = min(self.rank, spec.classes - 1)
        return rank, min(self.parts, rank)

    def _contexts(self, parts: int, choice: int) -> int:
        return parts * (self.words + 1) if choice else parts

    def _cheapest(self, numbers: np.ndarray) -> tuple[int, bytes, int, np.ndarray]:
        """The context model of fewest bytes, its packed tables, lanes, and tables."""
        found = []
        epochs, _, parts = numbers.shape
        for choice in range(_MODELS if epochs > 1 else 1):
            contexts = self._contexts(parts, choice)
            if contexts > _MAX_CONTEXTS:
                continue
            counts = _counts(numbers, self.words, choice, contexts)
            tables = frequencies(counts)
            bits = float((counts * -np.log2(np.maximum(tables, 1) / 2.0**14)).sum())
            table = zlib.compress(tables.astype("<u2").tobytes(), 9)
            lanes = int(np.clip(bits / 8 / _BYTES_PER_LANE, 1, min(_MAX_LANES, numbers[0].size)))
            found.append((bits / 8 + len(table), choice, table, lanes, tables))
        return min(found, key=lambda model: model[:2])[1:]


@dataclass(frozen=True, eq=False)
class _Plane:
    """Labels as mean + sum over directions of scale * coordinate * direction.

    Attributes:
        mean: [k], in float16 on the disk.
        directions: [r, k] in [-1, 1], multiples of 1/127.
        scales: [r] float32, such that words have coordinates in [-1, 1]; lengths of the directions
            before words are known.
    """

    mean: Tensor
    directions: Tensor
    scales: Tensor

    @staticmethod
    def fit(labels: Labels, rank: int, parts: int) -> _Plane:
        """The plane of largest variance, its directions in the order of the parts."""
        spec = labels.spec
        total = torch.zeros(spec.classes, dtype=torch.float64)
        square = torch.zeros(spec.classes, spec.classes, dtype=torch.float64)
        for epoch in epochs_of(labels):
            rows = _centred(epoch).double()
            total += rows.sum(dim=0)
            square += rows.T @ rows
        mean = total / spec.labels
        variances, vectors = torch.linalg.eigh(square / spec.labels - torch.outer(mean, mean))
        variances, vectors = variances.flip(0)[:rank], vectors.T.flip(0)[:rank]
        largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
        # An eigenvector's sign is arbitrary.
        levels = (vectors / largest * _LEVELS).round() / _LEVELS
        directions = levels[balanced_order(variances.clamp_min(0), parts)].float()
        return _Plane(mean.half().float(), directions, directions.norm(dim=1))

    def coordinates(self, labels: Labels) -> Tensor:
        """Coordinates [n, r] of one epoch's labels, in which distances are those of labels."""
        inverse = torch.linalg.pinv(self.directions.double()).float()
        return ((_centred(labels) - self.mean) @ inverse) * self.scales

    def with_words(self, codebooks: Tensor) -> tuple[_Plane, Tensor]:
        """The plane scaled to words [words, r] of `coordinates`, and the words in 8 bits."""
        values = codebooks / self.scales
        scales = values.abs().amax(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
        levels = (values / scales * _LEVELS).round().to(torch.int8)
        return _Plane(self.mean, self.directions, scales), levels

    def rows(self, points: Tensor) -> Tensor:
        """Logits [n, k] of points [n, r] in [-1, 1]."""
        return self.mean + (points * self.scales) @ self.directions

    def to_bytes(self) -> bytes:
        """Mean, scales and directions.

        Raises:
            CodecError: if a mean exceeds float16.
        """
        levels = (self.directions * _LEVELS).round().to(torch.int8).numpy().tobytes()
        scales = self.scales.numpy().astype("<f4").tobytes()
        return halves_to_bytes(self.mean, "mean logits") + scales + levels

    @staticmethod
    def read(reader: BodyReader, rank: int, classes: int) -> _Plane:
        """What `to_bytes` wrote.

        Raises:
            CodecError: for a scale that is not finite.
        """
        mean = reader.halves(classes)
        scales = reader.singles(rank)
        directions = reader.integers("i1", rank, classes).float() / _LEVELS
        return _Plane(mean, directions, scales)


class _Backwards:
    """The blocks of all epochs, last one first."""

    def __init__(self, numbers: np.ndarray, words: int, choice: int) -> None:
        self._numbers, self._words, self._choice = numbers, words, choice

    def __iter__(self) -> Iterator[Block]:
        yield from reversed(list(_blocks(self._numbers, self._words, self._choice)))


def _blocks(numbers: np.ndarray, words: int, choice: int) -> Iterator[Block]:
    """The words of each epoch, part by part, and their contexts."""
    before = None
    for row in numbers:
        images, parts = row.shape
        yield row.T.ravel(), _contexts_of(before, images, parts, words, choice)
        before = row


def _contexts_of(
    before: np.ndarray | None, images: int, parts: int, words: int, choice: int
) -> np.ndarray:
    """Contexts [parts * images]: the part, and the word in the epoch before if there is one."""
    own = np.repeat(np.arange(parts), images)
    if not choice:
        return own
    earlier = np.zeros(parts * images, np.int64)
    if before is not None:
        earlier = 1 + before.T.ravel().astype(np.int64)
    return own * (words + 1) + earlier


def _counts(numbers: np.ndarray, words: int, choice: int, contexts: int) -> np.ndarray:
    """How often each word occurs in each context, [contexts, words]."""
    counts = np.zeros(contexts * words, np.int64)
    for symbols, of in _blocks(numbers, words, choice):
        counts += np.bincount(of * words + symbols, minlength=contexts * words)
    return counts.reshape(contexts, words)


def _numbers(
    labels: Labels, points: Tensor, plane: _Plane, levels: Tensor, parts: int
) -> np.ndarray:
    """The numbers [e, n, parts] uint8 of the words of labels with these points [e * n, r]."""
    widths = part_widths(levels.shape[1], parts)
    codebooks = (levels.float() / _LEVELS).split(widths, dim=1)
    # A unit of a coordinate is so many logits.
    lengths = (plane.scales * plane.directions.norm(dim=1)).split(widths)
    shapes = plane.scales[:, None] * plane.directions / labels.temperature
    epochs = []
    for epoch, own in zip(epochs_of(labels), points.split(labels.spec.images), strict=True):
        parted = zip(own.split(widths, dim=1), codebooks, lengths, strict=True)
        nearest = [nearest_words(part * unit, words * unit) for part, words, unit in parted]
        weights = epoch.probabilities()[0].cpu()
        start = torch.stack(nearest, dim=1)
        epochs.append(least_divergent(own, shapes, weights, codebooks, start))
    return torch.stack(epochs).numpy().astype(np.uint8)


def _inflated(packed: memoryview, size: int, what: str) -> bytes:
    """Exactly `size` bytes of a stream.

    Raises:
        CodecError: for a stream that is broken, or gives another number of bytes.
    """
    content = inflate(packed, size, what)
    if len(content) != size:
        raise CodecError(f"the stream of {what} gives {len(content)} bytes, not {size}; {_HINT}")
    return content


def _points(numbers: Tensor, codebooks: Tensor) -> Tensor:
    """Points [n, r] of the words [n, parts], from codebooks side by side [words, r]."""
    widths = part_widths(codebooks.shape[1], numbers.shape[1])
    parts = zip(codebooks.split(widths, dim=1), numbers.T, strict=True)
    return torch.cat([own[word] for own, word in parts], dim=1)


def _centred(labels: Labels) -> Tensor:
    """Logits [n, k] of one epoch, shifted to mean 0."""
    rows = logit_rows(labels)
    return rows - rows.mean(dim=1, keepdim=True)
