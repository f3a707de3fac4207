"""Tensors as little-endian bytes, and checked reading of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from projectors.codecs.errors import CodecError


def index_type(count: int) -> str:
    """NumPy's name of the smallest unsigned integer that holds 0 ... count - 1.

    >>> [index_type(count) for count in (10, 256, 257, 1000, 65536, 65537)]
    ['u1', 'u1', '<u2', '<u2', '<u2', '<u4']
    """
    if count <= 1 << 8:
        return "u1"
    return "<u2" if count <= 1 << 16 else "<u4"


def index_bytes(count: int) -> int:
    """Bytes of one index into `count` things."""
    return np.dtype(index_type(count)).itemsize


def indices_to_bytes(indices: Tensor, count: int) -> bytes:
    """Indices in [0, count), each in the smallest unsigned integer that holds them."""
    return np.ascontiguousarray(indices.cpu().numpy(), dtype=index_type(count)).tobytes()


def halves_to_bytes(values: Tensor, what: str) -> bytes:
    """Values rounded to float16.

    Raises:
        CodecError: if one is too large; `what` names them.
    """
    halves = values.to(torch.float16)
    if not bool(torch.isfinite(halves).all()):
        raise CodecError(f"{what} exceed 65504, the largest float16; use a codec without float16")
    return halves.cpu().contiguous().numpy().astype("<f2").tobytes()


class BodyReader:
    """Reads the arrays of a body in turn; the caller has checked its length."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._offset = 0

    def _take(self, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(self._body, dtype=dtype, count=count, offset=self._offset)
        self._offset += array.nbytes
        return array.reshape(shape)

    def integers(self, dtype: str, *shape: int) -> Tensor:
        """Signed integers of a NumPy type, in that type."""
        array = self._take(dtype, shape)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))

    def indices(self, count: int, *shape: int) -> Tensor:
        """Indices in [0, count) as int64.

        Raises:
            CodecError: if one lies outside.
        """
        indices = torch.from_numpy(self._take(index_type(count), shape).astype(np.int64))
        if indices.numel() and int(indices.max()) >= count:
            raise CodecError(
                f"index {int(indices.max())} of {count} in encoded labels; encode again"
            )
        return indices

    def halves(self, *shape: int) -> Tensor:
        """float16 numbers as float32.

        Raises:
            CodecError: if one is not finite.
        """
        values = torch.from_numpy(self._take("<f2", shape).astype(np.float32))
        if not bool(torch.isfinite(values).all()):
            raise CodecError("NaN or infinity in encoded labels; encode them again")
        return values

    def singles(self, *shape: int) -> Tensor:
        """float32 numbers.

        Raises:
            CodecError: if one is not finite.
        """
        values = torch.from_numpy(self._take("<f4", shape).astype(np.float32))
        if not bool(torch.isfinite(values).all()):
            raise CodecError("NaN or infinity in encoded labels; encode them again")
        return values

    def probabilities(self, *shape: int) -> Tensor:
        """float16 numbers in [0, 1] as float32.

        Raises:
            CodecError: if one lies outside.
        """
        values = self.halves(*shape)
        if values.numel() and (float(values.min()) < 0 or float(values.max()) > 1):
            raise CodecError("a probability outside [0, 1] in encoded labels; encode them again")
        return values
