"""Files of other programs: read with limits, and never as objects."""

from __future__ import annotations

import codecs
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.errors import WorkError

# Real images shrink a few times, and blank ones some twenty; deflate makes a thousand of zeros.
_MOST_EXPANSION = 100

_ALWAYS_ALLOWED = 256 << 20


def check_expansion(path: Path) -> None:
    """Refuse an archive that would fill the memory; a file that is no archive passes.

    What the archive's directory promises is the most that a reader unpacks.

    Raises:
        ValueError: if it promises far more bytes than real arrays could have been packed to.
        zipfile.BadZipFile: if its directory is broken.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        promised = sum(entry.file_size for entry in archive.infolist())
    most = max(_ALWAYS_ALLOWED, _MOST_EXPANSION * path.stat().st_size)
    if promised > most:
        raise ValueError(f"it would unpack to {promised:,} bytes, a decompression bomb")


_EXPANDED_LIMIT = 1 << 26


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file; arrays of objects, which are pickles, are refused."""
    try:
        check_expansion(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # noqa: BLE001 - a foreign file may fail in any way
        raise _unreadable(path, error) from None


def load_tensors(path: Path) -> Any:
    """What torch.save wrote, if it is tensors, numbers and text alone."""
    # Accuracies beside the tensors may be NumPy numbers; these constructors make nothing else.
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    numbers: list[Any] = [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        (codecs.encode, "_codecs.encode"),
        np.dtype,
        type(np.dtype(np.float64)),
        type(np.dtype(np.float32)),
        type(np.dtype(np.int64)),
    ]
    try:
        check_expansion(path)
        with torch.serialization.safe_globals(numbers), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a foreign file may fail in any way
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> WorkError:
    reason = " ".join(str(error).split())[:120]
    return WorkError(
        f"{path} cannot be read as plain arrays ({reason}); a file that needs code to be run is "
        "never loaded: name another, or store tensors alone"
    )


def is_plain(found: Any) -> bool:
    """Whether it is a tensor of real numbers that are all in its file."""
    if not isinstance(found, Tensor) or found.layout != torch.strided or found.device.type != "cpu":
        return False
    if found.is_complex() or found.is_quantized:
        return False
    # Strides of 0 could make terabytes of one number.
    return found.nbytes <= max(found.untyped_storage().nbytes(), _EXPANDED_LIMIT)
