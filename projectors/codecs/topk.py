"""The k largest entries of each label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from projectors.codecs.arrays import BodyReader, halves_to_bytes, index_bytes, indices_to_bytes
from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import open_body, pack
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import (
    DTYPES,
    Labels,
    LabelSpec,
    check_choice,
    check_integer,
    epochs_of,
    from_probabilities,
    from_rows,
    log_probability_rows,
    logit_rows,
)

_TAILS = ("plain", "marginal", "renormalised")


@dataclass(frozen=True)
class TopK(LabelCodec):
    """The k largest entries of each label in float16, with their classes.

    The tail, all other classes, is how the receiver fills in the mass 1 - m that was dropped:

    - "marginal": kept probabilities p stay and the others share 1 - m evenly (FKD's marginal
      smoothing). Error on kept entries: 2^-11 p from float16, or 2^-25 below 2^-14.
    - "renormalised": kept probabilities become p / m, the others 0 (FKD's marginal renorm). Biased:
      every kept probability is 1 / m too large. (Kept probabilities that stay as they are beside
      zeros sum to m; as a target of cross-entropy that is this label at weight m.)
    - "plain": what a sparse tensor does: kept are logits, less the label's mean logit, and the
      others read 0, that mean. Differences of kept logits are off by at most 2^-10 of the larger.

    Probabilities are at the labels' temperature, so students must read them at the same one.
    A probability of 0 decodes to 2^-26. Source: Shen and Xing 2022 (FKD).

    >>> import torch
    >>> labels = Labels(torch.tensor([[[0.5, 0.25, 0.15, 0.10]]]).log())
    >>> TopK(2).decode(TopK(2).encode(labels)).probabilities()
    tensor([[[0.5000, 0.2500, 0.1250, 0.1250]]])

    Attributes:
        k: entries kept of each label, at least 1 and below the number of classes.
        tail: "plain", "marginal" or "renormalised".
    """

    codec_id: ClassVar[str] = "topk"
    k: int
    tail: str = "marginal"

    def __post_init__(self) -> None:
        check_integer("k", self.k, 1)
        check_choice("tail", self.tail, _TAILS)

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> int:
        if self.k >= spec.classes:
            raise CodecError(
                f"k={self.k} of {spec.classes} classes leaves no tail; lower k or use Dense"
            )
        return spec.labels * self.k * (2 + index_bytes(spec.classes))

    @override
    def encode(self, labels: Labels) -> bytes:
        spec = labels.spec
        self.body_bytes(spec)
        entries = [self._entries(epoch) for epoch in epochs_of(labels)]
        values, classes = (torch.cat(part) for part in zip(*entries, strict=True))
        body = halves_to_bytes(values, "logits") + indices_to_bytes(classes, spec.classes)
        return pack(self, spec, body)

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec, reader = container.spec, BodyReader(container.body)
        shape = (spec.labels, self.k)
        values = reader.halves(*shape) if self.tail == "plain" else reader.probabilities(*shape)
        classes = reader.indices(spec.classes, *shape)
        one = replace(spec, epochs=1)
        logits = torch.empty(spec.epochs, spec.images, spec.classes, dtype=DTYPES[spec.dtype])
        parts = zip(values.split(spec.images), classes.split(spec.images), strict=True)
        for row, (kept, columns) in zip(logits, parts, strict=True):
            row.copy_(self._filled(kept, columns, one).logits[0])
        return Labels(logits, spec.temperature)

    def _entries(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Values and classes [labels, k] of the largest entries."""
        if self.tail == "plain":
            rows = logit_rows(labels)
            rows = rows - rows.mean(dim=1, keepdim=True)
        else:
            rows = log_probability_rows(labels).exp()
        values, classes = rows.topk(self.k, dim=1)
        return values, classes

    def _filled(self, values: Tensor, classes: Tensor, spec: LabelSpec) -> Labels:
        """Labels of one epoch, the tail filled in."""
        rest = torch.zeros(len(values), 1)
        if self.tail == "marginal":
            rest = (1 - values.sum(dim=1, keepdim=True)) / (spec.classes - self.k)
        elif self.tail == "renormalised":
            values = values / values.sum(dim=1, keepdim=True).clamp_min(torch.finfo().tiny)
        rows = _scatter(rest.clamp_min(0.0), classes, values, spec.classes)
        return from_rows(rows, spec) if self.tail == "plain" else from_probabilities(rows, spec)


def _scatter(rest: Tensor, classes: Tensor, values: Tensor, width: int) -> Tensor:
    """[labels, width] of `rest` [labels, 1], with `values` at `classes`."""
    return rest.repeat(1, width).scatter_(1, classes, values)
