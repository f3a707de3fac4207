"""What a file says, whatever its bytes: two files of the same meaning are the same to a reader."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from safetensors import safe_open

from distill.store.attributes import DIGESTS
from distill.store.heaps import check_heaps

# Costs of the process that ran, and where it ran.
VOLATILE = {"seconds", "peak_memory_bytes", "versions", "path", "train_seconds", "epoch_seconds"}


def meaning_of(path: Path) -> Any:
    """Plain values that stand for all that a file or a folder says."""
    if path.is_symlink() or not path.exists():
        return None
    if path.is_dir():
        return {entry.name: meaning_of(entry) for entry in sorted(path.iterdir())}
    if not path.is_file():
        return "a device"
    try:
        return _READERS.get(path.suffix, _bytes)(path)
    except Exception as error:  # noqa: BLE001 - whatever cannot be read says nothing
        return f"unreadable: {type(error).__name__}"


def lasting(value: Any) -> Any:
    """Plain values without what a second run would say otherwise."""
    if isinstance(value, dict):
        return {key: lasting(item) for key, item in value.items() if key not in VOLATILE}
    return [lasting(item) for item in value] if isinstance(value, list) else value


def _bytes(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _array(array: np.ndarray) -> tuple[str, tuple[int, ...], str]:
    content = np.ascontiguousarray(array)
    plain = content.tobytes() if content.dtype != object else str(content.tolist()).encode()
    return str(content.dtype), content.shape, hashlib.sha256(plain).hexdigest()


def _hdf5(path: Path) -> Any:
    # HDF5 would walk on the spot for ever in some damaged ones.
    check_heaps(path)
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:

        def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
            found[name] = {
                key: value if isinstance(value, str) else _array(np.asarray(value))
                for key, value in item.attrs.items()
                if key != DIGESTS
            }
            if isinstance(item, h5py.Dataset):
                found[f"{name}:"] = _array(np.asarray(item[()]))

        look("/", file)
        file.visititems(look)
    return found


def _json(path: Path) -> Any:
    return lasting(json.loads(path.read_text(encoding="utf-8")))


def _rows(path: Path) -> Any:
    """The rows, whatever their order: jobs end as they end."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def _safetensors(path: Path) -> Any:
    with safe_open(path, framework="np") as file:
        tensors = {name: _array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def _archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def _picture(path: Path) -> Any:
    with Image.open(path) as image:
        return _array(np.asarray(image))


_READERS = {
    ".h5": _hdf5,
    ".json": _json,
    ".jsonl": _rows,
    ".safetensors": _safetensors,
    ".npz": _archive,
    ".pt": _archive,
    ".png": _picture,
}
