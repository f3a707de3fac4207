"""The logits as a product of two thin matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from projectors.codecs.arrays import BodyReader, halves_to_bytes
from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import open_body, pack
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import Labels, LabelSpec, check_integer, from_rows, logit_rows


@dataclass(frozen=True)
class LowRank(LabelCodec):
    """Truncated singular value decomposition of the logits [e * n, k], factors in float16.

    Each label is first shifted to mean 0, which leaves its softmax unchanged and saves one rank;
    so decoded logits are shifted, probabilities are not. Error: the Frobenius norm of the logits'
    error is the root of the sum of the squared singular values that were cut off, the least that
    any two such matrices reach (Eckart and Young), plus that of the factors' rounding, at most
    2^-10 (1 + 2^-12) * sum over the rank of |left column| |right row|.

    >>> import torch
    >>> labels = Labels(torch.tensor([[[4.0, 0.0, -4.0], [2.0, 0.0, -2.0]]]))
    >>> LowRank(1).decode(LowRank(1).encode(labels)).logits.round(decimals=2) + 0.0
    tensor([[[ 4.,  0., -4.],
             [ 2.,  0., -2.]]])

    Attributes:
        rank: r, at least 1 and at most min(e * n, k).
    """

    codec_id: ClassVar[str] = "low-rank"
    rank: int

    def __post_init__(self) -> None:
        check_integer("rank", self.rank, 1)

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> int:
        most = min(spec.labels, spec.classes)
        if self.rank > most:
            raise CodecError(
                f"rank={self.rank} of {spec.labels} labels of {spec.classes} classes; "
                f"lower it to at most {most}"
            )
        return 2 * self.rank * (spec.labels + spec.classes)

    @override
    def encode(self, labels: Labels) -> bytes:
        spec = labels.spec
        self.body_bytes(spec)
        rows = logit_rows(labels)
        left, right = _factors(rows - rows.mean(dim=1, keepdim=True), self.rank)
        body = halves_to_bytes(left, "factors") + halves_to_bytes(right, "factors")
        return pack(self, spec, body)

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec, reader = container.spec, BodyReader(container.body)
        left = reader.halves(spec.labels, self.rank)
        right = reader.halves(self.rank, spec.classes)
        return from_rows(left @ right, spec)


def _factors(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Left [labels, rank] and right [rank, k] factors of equal largest entries."""
    # From the k x k Gram matrix, as there may be millions of rows; float64 makes up for its squared
    # condition number.
    wide = rows.double()
    _, vectors = torch.linalg.eigh(wide.T @ wide)
    right = vectors.T.flip(0)[:rank]
    largest = right.abs().argmax(dim=1, keepdim=True)
    right = right * right.gather(1, largest).sign()  # an eigenvector's sign is arbitrary
    left = wide @ right.T
    least = torch.finfo(torch.float32).tiny
    balance = (right.abs().amax(dim=1) / left.abs().amax(dim=0).clamp_min(least)).sqrt()
    # A direction that is zero in all labels would be scaled without bound.
    balance = balance.clamp_max(1.0e3)
    return left * balance, right / balance[:, None]
