"""The most probable class and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from typing_extensions import override

from projectors.codecs.arrays import BodyReader, index_bytes, indices_to_bytes
from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import open_body, pack
from projectors.codecs.labels import Labels, LabelSpec, from_probabilities, logit_rows


@dataclass(frozen=True)
class Hard(LabelCodec):
    """The class of the largest logit of each label, the first of equals.

    Error: the top-1 class is exact, all else is lost; the decoded probability of the class is
    1 / (1 + (k - 1) 2^-26).

    >>> import torch
    >>> labels = Labels(torch.tensor([[[0.5, 0.3, 0.2]]]).log())
    >>> Hard().decode(Hard().encode(labels)).probabilities()
    tensor([[[1.0000e+00, 1.4901e-08, 1.4901e-08]]])
    """

    codec_id: ClassVar[str] = "hard"

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> int:
        return spec.labels * index_bytes(spec.classes)

    @override
    def encode(self, labels: Labels) -> bytes:
        classes = logit_rows(labels).argmax(dim=1)
        return pack(self, labels.spec, indices_to_bytes(classes, labels.spec.classes))

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec = container.spec
        classes = BodyReader(container.body).indices(spec.classes, spec.labels, 1)
        rows = torch.zeros(spec.labels, spec.classes).scatter_(1, classes, 1.0)
        return from_probabilities(rows, spec)
