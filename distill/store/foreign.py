"""Files of other programs, read with size limits and never unpickled."""

from __future__ import annotations

import codecs
import math
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from distill.errors import WorkError
from synth.errors import lacks_memory

# Real images compress a few times, blank ones some 20 times, and zeros 1,000 times.
_MAX_EXPANSION = 100

_ALWAYS_ALLOWED = 256 << 20


def check_expansion(path: Path) -> None:
    """Refuse a decompression bomb, and promises of memory; a file that is no archive passes.

    Readers unpack no more bytes than the archive's directory states, but allocate what the header
    of an array, or a pickle, states.

    Raises:
        ValueError: if it states far more bytes than real arrays could have been compressed from,
            or an array more than there are, or is a pipe or a device, which may never end.
        zipfile.BadZipFile: if its directory is broken.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is a pipe, a device or a folder")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        promised = sum(entry.file_size for entry in archive.infolist())
        most = max(_ALWAYS_ALLOWED, _MAX_EXPANSION * path.stat().st_size)
        if promised > most:
            raise ValueError(f"it would unpack to {promised:,} bytes, a decompression bomb")
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                _check_array(archive, entry)
            elif entry.filename.endswith(".pkl") and b"bytearray" in archive.read(entry):
                raise ValueError(f"{entry.filename} asks for bytes by their number")


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise ValueError for an array whose header states more bytes than follow it."""
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in headers:
            raise ValueError(f"{entry.filename} has the unknown version {version}")
        shape, _, dtype = headers[version](file)
    promised = math.prod(shape) * dtype.itemsize
    if promised > entry.file_size:
        raise ValueError(
            f"{entry.filename} promises {promised:,} bytes, but holds {entry.file_size:,}"
        )


_EXPANDED_LIMIT = 1 << 26


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file; arrays of objects, which are pickles, are refused."""
    try:
        check_expansion(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # noqa: BLE001 - a foreign file may fail in any way
        raise _unreadable(path, error) from None


def load_torch(path: Path) -> Any:
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


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name."""
    try:
        return load_file(path)
    except Exception as error:  # noqa: BLE001 - a foreign file may fail in any way
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> WorkError | MemoryError:
    if lacks_memory(error):
        return MemoryError(f"to read {path}")
    reason = " ".join(str(error).split())[:120]
    return WorkError(
        f"{path} cannot be read as plain arrays ({reason}); a file that needs code to be run is "
        "never loaded: name another, or store tensors alone"
    )


def is_plain(value: Any) -> bool:
    """Whether a value is a dense CPU tensor of real numbers, all of them in its file."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    if value.is_complex() or value.is_quantized:
        return False
    # Strides of 0 could expand one number to terabytes.
    return value.nbytes <= max(value.untyped_storage().nbytes(), _EXPANDED_LIMIT)


_BY_NAME = (
    (r"replay_buffer_\d+\.pt", "buffers"),
    (r"(images|labels)_.*\.pt|.*_images\.pt", "mtt"),
    (r"res_.*ipc\.pt", "dc"),
    (r".*\.npz", "npz"),
    (r".*\.safetensors", "safetensors"),
)

_SAFETENSORS_HEAD = 10


def foreign_file(path: Path) -> WorkError | None:
    """What to say of a file of another program, which is not damaged; None for any other file."""
    layout = _layout_of(path)
    if layout is None:
        return None
    return WorkError(
        f"{path} is a file of another program; read it with `distill import {path} --from "
        f"{layout} --out NEW.h5`"
    )


def _layout_of(path: Path) -> str | None:
    """The layout by which `distill import` may read a file of another program, or None.

    Only the name and the first bytes are looked at: a zip archive (npz, torch), a pickle of old
    versions of torch, or the header of safetensors.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_SAFETENSORS_HEAD)
    except OSError:
        return None
    is_archive = head.startswith(b"PK\x03\x04")
    if not is_archive and not head.startswith((b"\x80\x02", b"\x80\x04")) and head[8:9] != b"{":
        return None
    named = (layout for name, layout in _BY_NAME if re.fullmatch(name, path.name))
    return next(named, "torch" if is_archive or head[8:9] != b"{" else "safetensors")
