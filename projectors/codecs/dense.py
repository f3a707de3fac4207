"""All logits, in fewer bits."""

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
from projectors.codecs.labels import Labels, LabelSpec, check_choice, from_rows, logit_rows

_WIDTHS = {"float16": 2, "bfloat16": 2, "int8": 1}

_LEVELS = 127


@dataclass(frozen=True)
class Dense(LabelCodec):
    """Every logit z in 2 bytes, or in 1 with 2 more for each label.

    Error: float16 |dz| <= 2^-11 |z| (none for float16 logits), bfloat16 |dz| <= 2^-8 |z|, int8
    |dz| <= max|z| / 253 + 2^-25 of the label, which includes the rounding up of its float16 scale.
    Below 2^-14, where float16 numbers are subnormal, float16 is off by 2^-25 at most. Labels of
    dtype float16 are rounded to it once more, as those of every codec.

    >>> import torch
    >>> labels = Labels(torch.tensor([[[4.0, 1.0, -2.0]]]))
    >>> Dense("int8").decode(Dense("int8").encode(labels)).logits
    tensor([[[ 4.0036,  1.0088, -1.9861]]])

    Attributes:
        dtype: "float16", "bfloat16", or "int8" with a float16 scale for each label.
    """

    codec_id: ClassVar[str] = "dense"
    dtype: str = "float16"

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, tuple(_WIDTHS))

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> int:
        scales = 2 if self.dtype == "int8" else 0
        return spec.labels * (spec.classes * _WIDTHS[self.dtype] + scales)

    @override
    def encode(self, labels: Labels) -> bytes:
        rows = logit_rows(labels)
        return pack(self, labels.spec, _ENCODERS[self.dtype](rows))

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec = container.spec
        rows = _DECODERS[self.dtype](BodyReader(container.body), spec.labels, spec.classes)
        return from_rows(rows, spec)


def _encode_float16(rows: Tensor) -> bytes:
    return halves_to_bytes(rows, "logits")


def _decode_float16(reader: BodyReader, labels: int, classes: int) -> Tensor:
    return reader.halves(labels, classes)


def _encode_bfloat16(rows: Tensor) -> bytes:
    values = rows.to(torch.bfloat16)
    if not bool(torch.isfinite(values).all()):
        raise CodecError("logits exceed the largest bfloat16, 3.38e38; label the images again")
    return values.view(torch.int16).numpy().astype("<i2").tobytes()


def _decode_bfloat16(reader: BodyReader, labels: int, classes: int) -> Tensor:
    bits = reader.integers("<i2", labels, classes)
    return bits.view(torch.bfloat16).float()


def _encode_int8(rows: Tensor) -> bytes:
    exact = rows.abs().amax(dim=1) / _LEVELS
    # Rounded up: with a smaller scale the largest logit would exceed 127 levels.
    near = exact.half()
    up = torch.nextafter(near, torch.full_like(near, torch.inf))
    scales = torch.where(near.float() < exact, up, near).clamp_min(2.0**-24)
    levels = torch.round(rows / scales.float()[:, None]).clamp(-_LEVELS, _LEVELS)
    return halves_to_bytes(scales, "scales of the logits") + levels.to(torch.int8).numpy().tobytes()


def _decode_int8(reader: BodyReader, labels: int, classes: int) -> Tensor:
    scales = reader.halves(labels, 1)
    return scales * reader.integers("i1", labels, classes)


_ENCODERS = {"float16": _encode_float16, "bfloat16": _encode_bfloat16, "int8": _encode_int8}

_DECODERS = {"float16": _decode_float16, "bfloat16": _decode_bfloat16, "int8": _decode_int8}
