"""A pruned label pool, encoded by another codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import container_bytes, open_body, pack, unpack
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import Labels, LabelSpec
from projectors.codecs.pool import Pool


@dataclass(frozen=True)
class Pruned(LabelCodec):
    """A part of the label epochs, encoded by another codec (LPLD; with `TopK` inside, LPQLD).

    Decoding repeats the pool over the training epochs as `Pool` says; the labels' `sources` name
    the view that each belongs to. Error: that of the inner codec on the labels that are kept; the
    others are lost, and training sees fewer different views. Source: Xiao and He 2024 (LPLD).

    >>> import torch
    >>> from projectors.codecs.dense import Dense
    >>> labels = Labels(torch.arange(24.0).reshape(4, 3, 2))
    >>> codec = Pruned(Dense(), ratio=0.5, unit="epoch")
    >>> codec.decode(codec.encode(labels)).logits[:, 0, 0]
    tensor([6., 0., 0., 0.])

    Attributes:
        inner: codec of the pool; not another `Pruned`.
        ratio: as of `Pool`.
        unit: as of `Pool`.
        batch_size: as of `Pool`.
        seed: as of `Pool`.
    """

    codec_id: ClassVar[str] = "pruned"
    inner: LabelCodec
    ratio: float
    unit: str = "batch-to-epoch"
    batch_size: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.pool
        if isinstance(self.inner, Pruned):
            raise CodecError("a pruned pool inside a pruned pool; raise the ratio of one instead")
        if not hasattr(self.inner, "codec_id"):
            raise CodecError(f"inner={self.inner!r} is no codec; give one, such as Dense()")

    @property
    def pool(self) -> Pool:
        """What is kept and read."""
        return Pool(self.ratio, self.unit, self.batch_size, self.seed)

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> int | None:
        """As `LabelCodec.body_bytes`; the inner container is part of it."""
        inner = self.pool.spec(spec)
        size = self.inner.body_bytes(inner)
        return None if size is None else container_bytes(self.inner, inner, size)

    @override
    def encode(self, labels: Labels) -> bytes:
        pool = Labels(self.pool.take(labels.logits), labels.temperature, labels.sources)
        return pack(self, labels.spec, self.inner.encode(pool))

    def decode_pool(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        """The pool alone, in the shape of `Pool.spec`; `pool.reads` says when each is read.

        Raises:
            CodecError: as `decode`.
        """
        return self._open(payload, limit)[1]

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        """As `LabelCodec.decode`; `sources` of the labels is set."""
        spec, pool = self._open(payload, limit)
        sources = self.pool.sources(spec)
        return Labels(self.pool.expand(pool.logits, sources), spec.temperature, sources)

    def _open(self, payload: Payload, limit: int) -> tuple[LabelSpec, Labels]:
        container = open_body(self, payload, limit)
        expected, actual = self.pool.spec(container.spec), unpack(container.body).spec
        if actual != expected:
            raise CodecError(
                f"a pool of {actual}, but {expected} is needed; encode the labels again"
            )
        return container.spec, self.inner.decode(container.body, limit=limit)
