"""Logits on a uniform grid, entropy-coded."""

from __future__ import annotations

import lzma
import struct
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload, describe
from projectors.codecs.container import open_body, pack
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import (
    Labels,
    LabelSpec,
    check_choice,
    check_real,
    from_rows,
    logit_rows,
)

_WIDTH = struct.Struct("<B")

_TYPES = {1: "i1", 2: "<i2", 4: "<i4"}

# Part of the format, as a raw stream does not store its filters; the window bounds the memory of
# decoding. lc, lp and pb are 0: on rows of 10 and of 1000 classes no context was smaller.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 23, "lc": 0, "lp": 0, "pb": 0}]


@dataclass(frozen=True)
class Quantised(LabelCodec):
    """Logits rounded to multiples of `step`, then compressed without loss.

    Error: |dz| <= step / 2 for every logit (and the rounding of the labels' dtype on top), so
    probabilities at temperature T are within a factor exp(step / T). The size depends on the
    logits: about their empirical entropy at this step, from above.

    >>> import torch
    >>> labels = Labels(torch.tensor([[[4.1, 0.3, -2.2]]]))
    >>> codec = Quantised(step=0.5)
    >>> codec.decode(codec.encode(labels)).logits
    tensor([[[ 4.0000,  0.5000, -2.0000]]])

    Attributes:
        step: width of the grid, in logits, > 0.
        coder: "lzma" (smaller) or "zlib" (faster), both of the standard library.
    """

    codec_id: ClassVar[str] = "quantised"
    step: float
    coder: str = "lzma"

    def __post_init__(self) -> None:
        check_real("step", self.step, 0.0, 1e6)
        check_choice("coder", self.coder, ("lzma", "zlib"))

    @override
    def config(self) -> dict[str, Any]:
        return describe(self)

    @override
    def body_bytes(self, spec: LabelSpec) -> None:
        """None: it depends on the logits."""

    @override
    def encode(self, labels: Labels) -> bytes:
        levels = torch.round(logit_rows(labels).double() / self.step)
        planes, width = _to_planes(levels)
        if self.coder == "lzma":
            coded = lzma.compress(planes, lzma.FORMAT_RAW, filters=_FILTERS)
        else:
            coded = zlib.compress(planes, 9)
        return pack(self, labels.spec, _WIDTH.pack(width) + coded)

    @override
    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        spec, body = container.spec, container.body
        width = body[0] if len(body) else 0
        if width not in _TYPES:
            raise CodecError(f"integers of {width} bytes in encoded labels; encode them again")
        planes = _inflate(self.coder, body[1:], spec.labels * spec.classes * width)
        levels = _from_planes(planes, width, (spec.labels, spec.classes))
        return from_rows((levels.double() * self.step).float(), spec)


def _to_planes(levels: Tensor) -> tuple[bytes, int]:
    """Levels as the narrowest integers, byte plane by byte plane, and their width in bytes."""
    largest = float(levels.abs().max())
    width = next((width for width in _TYPES if largest < 1 << (8 * width - 1)), None)
    if width is None:
        raise CodecError(f"a logit is {largest:.3g} steps from 0, at most 2^31 fit; raise step")
    array = np.ascontiguousarray(levels.numpy().astype(_TYPES[width]))
    return np.ascontiguousarray(array.view(np.uint8).reshape(-1, width).T).tobytes(), width


def _from_planes(planes: bytes, width: int, shape: tuple[int, int]) -> Tensor:
    array = np.frombuffer(planes, np.uint8).reshape(width, -1)
    levels = np.ascontiguousarray(array.T).view(_TYPES[width]).reshape(shape)
    return torch.from_numpy(levels.astype(np.int32))


def _inflate(coder: str, coded: memoryview, size: int) -> bytes:
    """Exactly `size` bytes; decompression stops there, however long the stream is."""
    try:
        if coder == "lzma":
            raw = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
            planes, complete, rest = raw.decompress(coded, size + 1), raw.eof, raw.unused_data
        else:
            stream = zlib.decompressobj()
            planes, complete, rest = (
                stream.decompress(coded, size + 1),
                stream.eof,
                stream.unused_data,
            )
    except (lzma.LZMAError, zlib.error) as error:
        raise CodecError(f"a broken stream in encoded labels ({error}); encode again") from error
    if len(planes) != size or not complete or rest:
        raise CodecError(f"the stream in encoded labels does not give {size} bytes; encode again")
    return planes
