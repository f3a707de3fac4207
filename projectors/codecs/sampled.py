"""Unbiased top-k: the tail is sampled instead of dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from typing_extensions import override

from projectors.codecs.arrays import BodyReader, halves_to_bytes, index_bytes, indices_to_bytes
from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import open_body, pack
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import (
    Labels,
    LabelSpec,
    check_integer,
    from_probabilities,
    log_probability_rows,
)


@dataclass(frozen=True)
class SampledTopK(LabelCodec):
    """The `kept` largest probabilities as they are, and `draws` samples of the others.

    Estimator: with K the kept classes, v_j their float16 probabilities and M = 1 - sum of v, a tail
    class is drawn with probability p_j / (sum of p outside K) and each draw adds M / draws to its
    class. So E[estimate_j] = v_j in K and M p_j / (sum of p outside K) outside: the probability p_j
    itself but for the rounding of v, |E - p| <= 2^-11 p_j in K and at most kept * 2^-11 in all
    outside. The importance weights p_j / q_j of the draws are equal, since the proposal q is the
    tail itself, so every estimate sums to 1. Draws of one label are systematic (one random offset,
    equal steps along the cumulated tail), which keeps the expectation and lowers the variance; the
    error of one label is at most M / draws in each class. A class that was not drawn decodes to
    2^-26 at most, which biases by k 2^-26.

    The bias of dropped tails and its cure by sampling: Anshumann et al. 2025 (sparse logit
    sampling); keeping the head exact and drawing systematically are additions.

    >>> import torch
    >>> labels = Labels(torch.tensor([[[0.5, 0.25, 0.15, 0.10]]]).log())
    >>> codec = SampledTopK(kept=1, draws=2, seed=0)
    >>> codec.decode(codec.encode(labels)).probabilities().round(decimals=4)
    tensor([[[0.5000, 0.2500, 0.0000, 0.2500]]])

    Attributes:
        kept: largest probabilities that are stored, at least 0 and below the number of classes.
        draws: samples of the rest, at least 1.
        seed: of the samples.
    """

    codec_id: ClassVar[str] = "sampled-topk"
    kept: int
    draws: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("kept", 0), ("draws", 1), ("seed", 0)):
            check_integer(name, getattr(self, name), least)

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> int:
        if self.kept >= spec.classes:
            raise CodecError(
                f"kept={self.kept} of {spec.classes} classes leaves no tail; lower it or use Dense"
            )
        entries = 2 * self.kept + (self.kept + self.draws) * index_bytes(spec.classes)
        return spec.labels * entries

    @override
    def encode(self, labels: Labels) -> bytes:
        spec = labels.spec
        self.body_bytes(spec)
        rows = log_probability_rows(labels).exp()
        values, classes = rows.topk(self.kept, dim=1)
        drawn = _draw(rows.scatter(1, classes, 0.0), self.draws, self.seed)
        ids = torch.cat((classes, drawn), dim=1)
        body = halves_to_bytes(values, "probabilities") + indices_to_bytes(ids, spec.classes)
        return pack(self, spec, body)

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec, reader = container.spec, BodyReader(container.body)
        values = reader.probabilities(spec.labels, self.kept)
        ids = reader.indices(spec.classes, spec.labels, self.kept + self.draws)
        share = (1 - values.sum(dim=1, keepdim=True)).clamp_min(0.0) / self.draws
        weights = torch.cat((values, share.expand(-1, self.draws)), dim=1)
        rows = torch.zeros(spec.labels, spec.classes).scatter_add_(1, ids, weights)
        return from_probabilities(rows, spec)


def _draw(tails: Tensor, draws: int, seed: int) -> Tensor:
    """Classes [labels, draws], drawn systematically in proportion to the rows of `tails`."""
    generator = Generator().manual_seed(seed)
    offsets = torch.rand(len(tails), 1, generator=generator, dtype=torch.float64)
    steps = (offsets + torch.arange(draws, dtype=torch.float64)) / draws
    cumulated = tails.cumsum(dim=1)
    points = steps * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, points, right=True)
    return drawn.clamp_max(tails.shape[1] - 1)
