"""A projector's fitted numbers in few bits: quantised by rows, then entropy coded.

magic "LIMBPRJ\\0" | version u8 | bits u8 | coder u8 | scales bfloat16 | vectors | codes

Names and shapes are not in the file: the receiver knows them from the projector's description.
A matrix is cut along its shorter side, so that a LoRA pair has one scale per rank; its row is
scale * code, a code being a whole number within +-(2^(bits-1) - 1). Vectors are float16 and
single numbers float32.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projectors.errors import ProjectorError
from projectors.files.entropy import CODERS, decode_symbols, encode_symbols

MAGIC = b"LIMBPRJ\0"

VERSION = 1

BITS = (4, 8, 32)

_PREFIX = struct.Struct("<8sBBB")

# Candidate scales, as fractions of the one that its largest number needs: at 4 bits it pays to
# clip a few outliers.
_CLIPS = torch.linspace(0.4, 1.0, 25)


@dataclass(frozen=True)
class Storage:
    """How a projector's fitted numbers are written.

    Attributes:
        bits: 32 for plain float32, 8 or 4 for whole numbers with a scale per row.
        coder: the entropy coder of the whole numbers, one of `CODERS`.
    """

    bits: int = 32
    coder: str = "zstandard"

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ProjectorError(f"bits is {self.bits}; write one of 4, 8, 32")
        if self.coder not in CODERS:
            raise ProjectorError(f"coder is {self.coder!r}; write one of {', '.join(CODERS)}")


def pack_compact(tensors: Mapping[str, Tensor], storage: Storage) -> bytes:
    """The bytes of named tensors; the same tensors give the same bytes.

    Raises:
        ProjectorError: if a number is not finite, or the coder is not installed.
    """
    scales, vectors, codes = [], [], []
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().float()
        if not bool(value.isfinite().all()):
            raise ProjectorError(f"{name} holds NaN or infinity; fit the projector again")
        if value.ndim < 2:
            vectors.append(_vector_bytes(name, value))
            continue
        scale, code = quantise(_rows(value), storage.bits)
        scales.append(scale)
        codes.append(code.reshape(-1))
    levels = _levels(storage.bits)
    symbols = (torch.cat(codes) + levels).numpy().astype(np.uint8) if codes else _NO_SYMBOLS
    coded = encode_symbols(symbols, 2 * levels + 1, storage.coder) if codes else b""
    prefix = _PREFIX.pack(MAGIC, VERSION, storage.bits, CODERS[storage.coder].mark)
    halves = [scale.to(torch.bfloat16).view(torch.int16).numpy().tobytes() for scale in scales]
    return b"".join([prefix, *halves, *vectors, coded])


def unpack_compact(content: bytes, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors, float32, of the given names and shapes.

    Raises:
        ProjectorError: if the bytes are damaged or do not fit the shapes.
    """
    storage = _read_prefix(content)
    matrices = {name: shape for name, shape in sorted(shapes.items()) if len(shape) > 1}
    reader = _Reader(content, _PREFIX.size)
    scales = {name: reader.halves(min(_sides(shape))) for name, shape in matrices.items()}
    tensors = {
        name: reader.vector(shape) for name, shape in sorted(shapes.items()) if len(shape) < 2
    }
    levels = _levels(storage.bits)
    total = sum(shape.numel() for shape in matrices.values())
    symbols = _NO_SYMBOLS
    if total:
        symbols = decode_symbols(reader.rest(), 2 * levels + 1, total, storage.coder)
    codes = torch.from_numpy(symbols.astype(np.float32)) - levels
    for name, part in zip(
        matrices, codes.split([s.numel() for s in matrices.values()]), strict=True
    ):
        rows = part.view(min(_sides(matrices[name])), -1) * scales[name][:, None]
        tensors[name] = _from_rows(rows, matrices[name])
    return tensors


def quantise(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scales [r], rounded to bfloat16, and whole codes [r, n] of rows [r, n].

    The scale of a row is the one of a few candidates with the least squared error.
    """
    levels = _levels(bits)
    largest = rows.abs().amax(dim=1)
    best = torch.full_like(largest, torch.inf)
    scale = torch.zeros_like(largest)
    for clip in _CLIPS.tolist():
        candidate = (largest * clip / levels).to(torch.bfloat16).float()
        error = (_codes(rows, candidate, levels) * candidate[:, None] - rows).square().sum(dim=1)
        scale = torch.where(error < best, candidate, scale)
        best = torch.minimum(error, best)
    return scale, _codes(rows, scale, levels)


def _codes(rows: Tensor, scale: Tensor, levels: int) -> Tensor:
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (rows / safe[:, None]).round().clamp(-levels, levels)


_NO_SYMBOLS = np.zeros(0, dtype=np.uint8)


def _levels(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def _sides(shape: torch.Size) -> tuple[int, int]:
    return shape[0], shape.numel() // max(shape[0], 1)


def _rows(value: Tensor) -> Tensor:
    flat = value.reshape(len(value), -1)
    return flat if flat.shape[0] <= flat.shape[1] else flat.T


def _from_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    first, second = _sides(shape)
    return (rows if first <= second else rows.T).reshape(shape).contiguous()


def _vector_bytes(name: str, value: Tensor) -> bytes:
    if value.ndim == 0:
        return value.numpy().astype("<f4").tobytes()
    halves = value.half()
    if not bool(halves.isfinite().all()):
        raise ProjectorError(f"{name} exceeds 65504, the largest float16; store it in float32")
    return halves.numpy().astype("<f2").tobytes()


def _read_prefix(content: bytes) -> Storage:
    try:
        magic, version, bits, mark = _PREFIX.unpack_from(content)
    except struct.error:
        magic, version, bits, mark = b"", 0, 0, 0
    names = [name for name, coder in CODERS.items() if coder.mark == mark]
    if (magic, version) != (MAGIC, VERSION) or bits not in (4, 8) or not names:
        raise ProjectorError("it is no compact file of a version that is known here")
    return Storage(bits, names[0])


class _Reader:
    """Reads a file's parts in turn."""

    def __init__(self, content: bytes, offset: int) -> None:
        self._content, self._offset = content, offset

    def _take(self, dtype: str, count: int) -> np.ndarray:
        size = count * np.dtype(dtype).itemsize
        part = self._content[self._offset : self._offset + size]
        if len(part) < size:
            raise ProjectorError("it ends too early")
        self._offset += size
        return np.frombuffer(part, dtype=dtype)

    def halves(self, count: int) -> Tensor:
        """Numbers [count] of type bfloat16, as float32."""
        raw = torch.from_numpy(self._take("<i2", count).astype(np.int16))
        return raw.view(torch.bfloat16).float()

    def vector(self, shape: torch.Size) -> Tensor:
        """A vector, or a single number."""
        raw = self._take("<f2" if shape else "<f4", shape.numel())
        return torch.from_numpy(raw.astype(np.float32)).reshape(shape)

    def rest(self) -> bytes:
        """All that follows."""
        return self._content[self._offset :]
