"""Import and export of sets, as the commands ask for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distill.errors import WorkError
from distill.sets.dataset import DistilledSet
from distill.sets.exchange.arrays import META, read_archive, write_archive
from distill.sets.exchange.card import data_card
from distill.sets.exchange.convert import ImportOptions, convert
from distill.sets.exchange.export_formats import FORMATS, Written
from distill.sets.exchange.import_layouts import LAYOUTS
from distill.sets.set_file import read_set, set_path, write_set
from distill.store.files import new_folder
from distill.store.foreign import is_plain, load_npz, load_tensors

CARD = "README.md"

_FILES = {"npz": "set.npz", "safetensors": "set.safetensors", "torch": "set.pt"}


def export_set(path: Path, form: str, out: Path, licence: str) -> Written:
    """Write the set at `path` into the new folder `out` in a format, with its data card.

    Args:
        path: set.h5, or the folder of a run.
        form: a name in `FORMATS`.
        out: the folder to make.
        licence: SPDX identifier for the card.

    Raises:
        WorkError: if the set cannot be read, the format cannot hold it, or `out` is taken.
    """
    place = set_path(path)
    archive = read_archive(place)
    data = DistilledSet(read_set(place))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WorkError(f"--out {out} exists and is not an empty folder; name another")
    try:
        with new_folder(out) as folder:
            written = FORMATS[form](folder, data, archive)
            card = data_card(data, written.load, written.files, licence)
            (folder / CARD).write_text(card, encoding="utf-8")
    except OSError as error:
        raise WorkError(f"--out {out} cannot be written: {error.strerror or error}") from None
    return written


def import_set(path: Path, layout: str, out: Path, wishes: ImportOptions) -> None:
    """Write set.h5 from a layout of `LAYOUTS`, or from what `export_set` wrote.

    Raises:
        RecipeError: if something must be said that the files do not.
        WorkError: if the files cannot be read, or `out` is there already.
    """
    if out.exists():
        raise WorkError(f"--out {out} exists; name another file or remove it")
    if not path.exists():
        raise WorkError(f"{path} is not there; name the files of a set")
    if layout in _FILES and _restore(path, layout, out):
        return
    if layout not in LAYOUTS:
        raise WorkError(f"{path} was not exported as {layout}; name a file that was")
    write_set(out, convert(LAYOUTS[layout](path), wishes, layout, path))
    try:
        read_set(out)
    except WorkError as error:
        out.unlink()
        raise WorkError(f"{path} holds no usable set: {error}") from None


def _restore(path: Path, layout: str, out: Path) -> bool:
    """Write the set again that was exported to `path`; False if it is another program's file."""
    place = path / _FILES[layout] if path.is_dir() else path
    if not place.is_file():
        raise WorkError(f"{place} is not a file; name one, or the folder that was exported")
    arrays, meta = _READERS[layout](place)
    if meta is None:
        return False
    write_archive(out, arrays, meta, place)
    return True


def _from_npz(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    arrays = load_npz(path)
    meta = arrays.pop(META, None)
    return arrays, None if meta is None else str(meta)


def _from_safetensors(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, (file.metadata() or {}).get(META)
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise WorkError(
            f"{path} cannot be read as safetensors ({error}); export it again"
        ) from None


def _from_torch(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    found = load_tensors(path)
    if not isinstance(found, dict) or META not in found:
        return {}, None
    meta = str(found.pop(META))
    if not all(map(is_plain, found.values())):
        raise WorkError(f"{path} is not a whole exported set; export the set again")
    return {str(name): np.asarray(tensor.numpy()) for name, tensor in found.items()}, meta


_READERS = {"npz": _from_npz, "safetensors": _from_safetensors, "torch": _from_torch}
