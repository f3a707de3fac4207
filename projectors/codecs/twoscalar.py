"""Two numbers a label: the confidence in its top class, and the sharpness of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from projectors.codecs.arrays import BodyReader, halves_to_bytes, index_bytes, indices_to_bytes
from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import open_body, pack
from projectors.codecs.labels import Labels, LabelSpec, from_rows, log_probability_rows

# Sharpness is sought in [-64, 64]; 28 halvings leave 5e-7, less than float16 can tell.
_MAX_SHARPNESS = 64.0

_ROWS = 256

_HALVINGS = 28


@dataclass(frozen=True)
class TwoScalars(LabelCodec):
    """The top class of each label, its log-odds, and the sharpness of its class's mean shape.

    With c the most probable class of a label p (at the labels' temperature), three things are
    stored of it: c, the log-odds log p_c - log(1 - p_c), and a sharpness a. The shape s_c, once for
    each class that is somewhere on top, is the mean over its labels of log p_j - mean_j log p_j,
    j != c. A label is rebuilt as

        p_c from its log-odds,    p_j = (1 - p_c) softmax_j(a s_c) for j != c,

    and a in [-64, 64] is the one with the least KL divergence from the label, which gives s_c the
    same mean under the rebuilt rest as under the label. So p_c is kept up to float16 (log-odds off
    by 2^-11 of themselves), the rest is biased towards the mean of its class: how the label departs
    from it, above all the second class of a mixed image, is lost. The shapes cost 2 k min(e n, k)
    bytes, which pays only where labels are many more than classes.

    NRR-DD (Tran et al. 2025) also keeps two numbers for each mixed image, the distances of the
    prediction from the one-hot labels of the image and of the one mixed in, and trains on the
    distances without any label; that loss is no codec, and rebuilding from shapes is this
    package's own. The class counts here too: a receiver who knows it could save it.

    >>> import torch
    >>> labels = Labels(torch.tensor([[[0.5, 0.3, 0.2], [0.7, 0.18, 0.12]]]).log())
    >>> TwoScalars().decode(TwoScalars().encode(labels)).probabilities().round(decimals=3)
    tensor([[[0.5000, 0.3000, 0.2000],
             [0.7000, 0.1800, 0.1200]]])
    """

    codec_id: ClassVar[str] = "two-scalars"

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> int:
        shapes = min(spec.labels, spec.classes)
        ids = spec.labels * index_bytes(shapes) + shapes * index_bytes(spec.classes)
        return 4 * spec.labels + 2 * shapes * spec.classes + ids

    @override
    def encode(self, labels: Labels) -> bytes:
        spec = labels.spec
        rows = log_probability_rows(labels)
        tops = rows.argmax(dim=1)
        classes, shape_ids = torch.unique(tops, return_inverse=True)
        odds = rows.gather(1, tops[:, None]) - _log_rest(rows, tops)
        shapes = _shapes(rows, tops, shape_ids, min(spec.labels, spec.classes))
        used = shapes.to(torch.float16).to(rows.dtype)
        # A few rows at a time, so that the bisection stays in the processor's cache.
        parts = (part.split(_ROWS) for part in (rows, tops, shape_ids))
        sharpness = torch.cat([_sharpness(r, t, used[i]) for r, t, i in zip(*parts, strict=True)])
        padded = torch.zeros(len(shapes), dtype=torch.int64)
        padded[: len(classes)] = classes
        body = b"".join(
            (
                halves_to_bytes(odds, "log-odds"),
                halves_to_bytes(sharpness, "sharpness"),
                halves_to_bytes(shapes, "log probabilities"),
                indices_to_bytes(padded, spec.classes),
                indices_to_bytes(shape_ids, len(shapes)),
            )
        )
        return pack(self, spec, body)

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec, reader = container.spec, BodyReader(container.body)
        count = min(spec.labels, spec.classes)
        odds = reader.halves(spec.labels, 1)
        sharpness = reader.halves(spec.labels, 1)
        shapes = reader.halves(count, spec.classes)
        classes = reader.indices(spec.classes, count)
        shape_ids = reader.indices(count, spec.labels)
        tops = classes[shape_ids][:, None]
        rest = (sharpness * shapes[shape_ids]).scatter(1, tops, -torch.inf).log_softmax(dim=1)
        rest = rest + torch.nn.functional.logsigmoid(-odds)
        rows = rest.scatter(1, tops, torch.nn.functional.logsigmoid(odds))
        return from_rows(spec.temperature * rows, spec)


def _log_rest(rows: Tensor, tops: Tensor) -> Tensor:
    """Log of the probability [labels, 1] outside the top class."""
    return rows.scatter(1, tops[:, None], -torch.inf).logsumexp(dim=1, keepdim=True)


def _shapes(rows: Tensor, tops: Tensor, shape_ids: Tensor, count: int) -> Tensor:
    """Mean shapes [count, k], zero at their own class and in unused rows."""
    rest = rows.scatter(1, tops[:, None], 0.0)
    centred = rest - rest.sum(dim=1, keepdim=True) / (rows.shape[1] - 1)
    centred.scatter_(1, tops[:, None], 0.0)
    sums = torch.zeros(count, rows.shape[1], dtype=rows.dtype).index_add_(0, shape_ids, centred)
    members = torch.bincount(shape_ids, minlength=count).clamp_min(1)
    return sums / members[:, None]


def _sharpness(rows: Tensor, tops: Tensor, shapes: Tensor) -> Tensor:
    """Sharpness [labels, 1] under which each shape has the mean that it has under the label."""
    others = rows.scatter(1, tops[:, None], -torch.inf).softmax(dim=1)
    goal = (others * shapes).sum(dim=1, keepdim=True)
    low = torch.full_like(goal, -_MAX_SHARPNESS)
    high = torch.full_like(goal, _MAX_SHARPNESS)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rest = (middle * shapes).scatter(1, tops[:, None], -torch.inf).softmax(dim=1)
        below = (rest * shapes).sum(dim=1, keepdim=True) < goal
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
