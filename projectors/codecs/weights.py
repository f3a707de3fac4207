"""A network's weights in few bits: a quantised teacher is a label codec too.

A receiver who has the teacher labels every view himself, so no label is stored at all.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projectors.codecs.arrays import BodyReader, halves_to_bytes
from projectors.codecs.container import inflate, seal, unseal
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import check_integer
from projectors.codecs.rans import Decoder, check_tables, encode_blocks, frequencies

_HEADER = struct.Struct("<III")

_LANES = 64

# Weights of each interleaved coder, which itself takes 4 bytes.
_WEIGHTS_PER_LANE = 1024

_LAYOUT_LIMIT = 64 << 20

_MAX_WEIGHTS_PER_BYTE = 10_000

_HINT = "encode the network again"


@dataclass(frozen=True)
class Weights:
    """Matrices and kernels as integers of `bits` bits, entropy-coded; vectors in float16.

    Each output channel w of a tensor of two or more dimensions has a scale of its own, its largest
    weight over 2^(bits - 1) - 1, in float16 and rounded up. Error: |dw| <= max|w| / (2^bits - 2)
    up to 2^-10 of it. Vectors (biases, norms) are off by 2^-11 of themselves; integers are exact.

    >>> import torch
    >>> state = {"w": torch.tensor([[1.0, 0.6], [-2.0, 0.1]]), "n": torch.tensor(3)}
    >>> Weights(4).decode(Weights(4).encode(state, {}))[0]["w"].round(decimals=2)
    tensor([[ 1.0000,  0.5700],
            [-2.0000,  0.0000]])

    Attributes:
        bits: 2 to 8.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        check_integer("bits", self.bits, 2)
        if self.bits > 8:
            raise CodecError(f"bits={self.bits}; choose 2 to 8")

    def rounded(self, weight: Tensor) -> Tensor:
        """What `decode` gives for a weight of two or more dimensions, on its device.

        Rounding twice changes nothing more.

        >>> Weights(2).rounded(torch.tensor([[1.0, 0.6, 0.1]]))
        tensor([[1., 1., 0.]])
        """
        scales, levels = self._quantise(weight.float())
        return (levels * scales[:, None]).reshape(weight.shape).to(weight.dtype)

    def encode(self, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
        """A container of a network's state.

        Args:
            state: parameters and buffers by name.
            about: JSON-able; what a receiver needs to build and use the network.

        Raises:
            CodecError: for a weight that is not finite or too large for float16.
        """
        halves, levels, layout = [], [], []
        for name, value in state.items():
            tensor = value.detach().cpu()
            layout.append([name, list(tensor.shape), _kind(tensor)])
            if _kind(tensor) == "levels":
                scales, quantised = self._quantise(tensor.float())
                halves.append(scales)
                levels.append((quantised + self._most).to(torch.uint8).numpy().ravel())
            elif _kind(tensor) == "halves":
                halves.append(tensor.float().flatten())
            else:
                layout[-1].append(tensor.flatten().tolist())
        words = halves_to_bytes(torch.cat([torch.zeros(0), *halves]), "weights")
        symbols = np.concatenate([np.zeros(0, np.uint8), *levels])
        contexts = np.zeros(len(symbols), np.int64)
        tables = frequencies(np.bincount(symbols, minlength=1 << self.bits)[None])
        table = zlib.compress(tables.astype("<u2").tobytes(), 9)
        lanes = max(1, min(_LANES, len(symbols) // _WEIGHTS_PER_LANE))
        coded = encode_blocks([(symbols, contexts)], tables, lanes)
        text = zlib.compress(json.dumps(layout, separators=(",", ":")).encode(), 9)
        head = _HEADER.pack(len(text), len(table), len(words))
        document = {"network": "weights", "bits": self.bits, "about": dict(about)}
        if lanes != _LANES:
            document["lanes"] = lanes
        return seal(document, head + text + table + words + coded)

    def decode(self, payload: bytes | memoryview) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """State in float32, and the `about` of `encode`.

        Raises:
            CodecError: for bytes that are cut short, damaged, foreign or of other bits.
        """
        document, body = unseal(payload)
        if document.get("network") != "weights" or document.get("bits") != self.bits:
            raise CodecError(f"no weights of {self.bits} bits; {_HINT}")
        try:
            return self._read(body, _lanes_of(document)), document["about"]
        except (
            ValueError,
            TypeError,
            LookupError,
            RuntimeError,
            OverflowError,
            struct.error,
        ) as error:
            reason = " ".join(str(error).split())
            raise CodecError(f"broken weights ({reason}); {_HINT}") from error

    @property
    def _most(self) -> int:
        """The largest whole number of a scale."""
        return 2 ** (self.bits - 1) - 1

    def _quantise(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The scale of each output channel, and whole numbers of it [channels, weights]."""
        most = self._most
        rows = tensor.flatten(1)
        exact = rows.abs().amax(dim=1) / most
        near = exact.half()
        up = torch.nextafter(near, torch.full_like(near, torch.inf))
        scales = torch.where(near.float() < exact, up, near).clamp_min(2.0**-24).float()
        return scales, (rows / scales[:, None]).round().clamp(-most, most)

    def _read(self, body: memoryview, lanes: int) -> dict[str, Tensor]:
        sizes = _HEADER.unpack(body[: _HEADER.size])
        parts, offset = [], _HEADER.size
        for size in sizes:
            parts.append(body[offset : offset + size])
            offset += size
        layout = json.loads(inflate(parts[0], _LAYOUT_LIMIT, "layers"))
        raw = inflate(parts[1], 2 << self.bits, "frequencies")
        tables = np.frombuffer(raw, "<u2").reshape(1, 1 << self.bits)
        check_tables(tables)
        words = BodyReader(parts[2]).halves(len(parts[2]) // 2)
        count = sum(math.prod(shape) for _, shape, kind, *_ in layout if kind == "levels")
        # Nearly constant weights cost far less than a bit each, but never all weights of a network.
        if not 0 <= count <= _MAX_WEIGHTS_PER_BYTE * len(body):
            raise CodecError(f"{count} weights in {len(body)} bytes, which cannot be; {_HINT}")
        decoder = Decoder(body[offset:], tables, lanes)
        levels = decoder.block(np.zeros(count, np.int64)) if count else np.zeros(0, np.uint8)
        decoder.finish()
        return self._assemble(layout, words, levels)

    def _assemble(self, layout: Any, words: Tensor, levels: np.ndarray) -> dict[str, Tensor]:
        state = {}
        used, taken = 0, 0
        for name, shape, kind, *values in layout:
            size = math.prod(shape)
            if kind == "integers":
                state[name] = torch.tensor(values[0], dtype=torch.int64).reshape(shape)
            elif kind == "halves":
                state[name] = words[used : used + size].reshape(shape)
                used += size
            else:
                scales = words[used : used + shape[0]]
                symbols = levels[taken : taken + size].astype(np.float32)
                rows = torch.from_numpy(symbols) - self._most
                state[name] = (rows.reshape(shape[0], -1) * scales[:, None]).reshape(shape)
                used, taken = used + shape[0], taken + size
        if used != len(words):
            raise CodecError(f"{len(words)} numbers for weights that take {used}; {_HINT}")
        return state


def _lanes_of(document: Mapping[str, Any]) -> int:
    """Interleaved coders of a payload; earlier ones had as many whatever their weights."""
    lanes = document.get("lanes", _LANES)
    if type(lanes) is not int or not 1 <= lanes <= _LANES:
        raise CodecError(f"weights coded in {lanes!r} lanes, need 1 to {_LANES}; {_HINT}")
    return lanes


def _kind(tensor: Tensor) -> str:
    if not tensor.dtype.is_floating_point:
        return "integers"
    return "levels" if tensor.dim() > 1 else "halves"
