"""Checkpoints as safetensors: named tensors and one JSON header, written atomically."""

from __future__ import annotations

import json
from collections.abc import Collection
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
    """Write named tensors with a JSON-able header."""
    ready: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        # Safetensors refuses two names for one memory, as when a state is also the last good one.
        ready[name] = value.clone() if place in places else value
        places.add(place)
    with atomic_path(path) as temporary:
        save_file(ready, temporary, metadata={"header": json.dumps(header, sort_keys=True)})


def load_tensors(
    path: Path, leave_out: Collection[str] = ()
) -> tuple[dict[str, Tensor], Any] | None:
    """Tensors and header of a checkpoint; None if it is missing or damaged.

    Args:
        path: of the file.
        leave_out: names of tensors that are not read.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["header"])
            names = [name for name in file.keys() if name not in leave_out]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}, header
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None


def to_arrays(tensors: dict[str, Tensor]) -> Arrays:
    """Tensors as plain arrays, which travel between processes by their bytes."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def from_arrays(arrays: Arrays) -> dict[str, Tensor]:
    """Tensors with memory of their own: arrays that have travelled may be read-only."""
    return {name: torch.tensor(array) for name, array in arrays.items()}
