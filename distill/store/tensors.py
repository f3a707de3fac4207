"""Named tensors and one JSON header in a file, under a digest, written atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill.store.files import atomic_path

Arrays = dict[str, np.ndarray]


def save_tensors(path: Path, tensors: dict[str, Tensor], header: Any) -> None:
    """Write named tensors with a JSON-able header, as safetensors with a digest of both."""
    ready: dict[str, Tensor] = {}
    pointers: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        pointer = value.untyped_storage().data_ptr()
        # Safetensors refuses two names for one memory, as when a state is also the last good one.
        ready[name] = value.clone() if pointer in pointers else value
        pointers.add(pointer)
    text = json.dumps(header)
    metadata = {"header": text, "digest": _digest(ready, text)}
    with atomic_path(path) as temporary:
        save_file(ready, temporary, metadata=metadata)


def load_tensors(
    path: Path, leave_out: Collection[str] = ()
) -> tuple[dict[str, Tensor], Any] | None:
    """Tensors and header of a file; None if it is missing, or does not fit its digest.

    Args:
        path: of the file.
        leave_out: names of tensors that are checked, but not kept.

    Raises:
        OSError: if the file is there and cannot be opened.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text, digest = (file.metadata()[key] for key in ("header", "digest"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _digest(tensors, text) != digest:
                return None
            kept = {name: value for name, value in tensors.items() if name not in leave_out}
            return kept, json.loads(text)
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """sha256 of a header and of tensors with their names, types and shapes."""
    total = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name}:{value.dtype}:{list(value.shape)};".encode())
        total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def to_arrays(tensors: dict[str, Tensor]) -> Arrays:
    """Tensors as NumPy arrays, to send between processes."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def from_arrays(arrays: Arrays) -> dict[str, Tensor]:
    """Copies of arrays as tensors: received arrays may be read-only."""
    return {name: torch.tensor(array) for name, array in arrays.items()}
