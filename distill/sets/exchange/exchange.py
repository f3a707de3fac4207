"""Import and export of sets, for the commands."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

from distill.errors import RecipeError, WorkError
from distill.names import (
    EXPERT_LAYOUTS,
    FORMATS,
    HUB_LAYOUTS,
    LAYOUTS,
    FormatEntry,
    load_object,
    resolve,
)
from distill.sets.dataset import DistilledSet
from distill.sets.exchange.arrays import new_set, read_archive, write_archive
from distill.sets.exchange.card import data_card
from distill.sets.exchange.convert import Converted, ImportOptions, convert
from distill.sets.exchange.croissant import CROISSANT, croissant
from distill.sets.exchange.expert_buffers import import_experts
from distill.sets.exchange.export_formats import Written
from distill.sets.set_file import read_set, set_path, write_set
from distill.store.files import new_folder

CARD = "README.md"


def export_set(path: Path, form: str, out: Path, licence: str) -> Written:
    """Write the set at `path` into the new folder `out` in a format, with its card and metadata.

    Args:
        path: set.h5, or the folder of a run.
        form: a name in `FORMATS`.
        out: the folder to make.
        licence: SPDX identifier for the card.

    Raises:
        WorkError: if the set cannot be read, the format cannot hold it, or `out` is taken.
    """
    set_file = set_path(path)
    archive = read_archive(set_file)
    data = DistilledSet(read_set(set_file))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WorkError(f"--out {out} exists and is not an empty folder; name another")
    try:
        with new_folder(out) as folder:
            written: Written = resolve(FORMATS[form])(folder, data, archive)
            # In ASCII: names may be no valid Unicode, or turn the direction of a terminal.
            metadata = json.dumps(croissant(data, written, folder, licence), indent=2)
            (folder / CROISSANT).write_text(f"{metadata}\n", encoding="ascii")
            files = {**written.files, CROISSANT: "metadata in Croissant 1.0"}
            written = replace(written, files=files)
            card = data_card(data, written.load, written.files, licence, written.prepare)
            (folder / CARD).write_text(card, encoding="utf-8")
    except OSError as error:
        raise WorkError(f"--out {out} cannot be written: {error.strerror or error}") from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, WorkError):
            raise
        raise WorkError(
            f"{path} cannot be exported as {form}, as its texts are not those of a set ({error}); "
            "make it again"
        ) from error
    return written


def import_set(
    path: Path, layout: str, out: Path, options: ImportOptions, *, download: bool = False
) -> tuple[str, ...]:
    """Write set.h5 from a layout of `LAYOUTS`, or from what `export_set` wrote; or experts.h5.

    Of a layout of `HUB_LAYOUTS`, `path` is an address, `out` a folder, and `download` says whether
    what is not on this machine is fetched; all that the set needs stands in it.

    Returns:
        Sentences on what was found out about the files that they do not state.

    Raises:
        RecipeError: if an option is needed that the files do not state.
        WorkError: if the files cannot be read, or `out` is there already.
    """
    if layout in HUB_LAYOUTS:
        _refuse_options(options)
        notes: tuple[str, ...] = resolve(HUB_LAYOUTS[layout])(path, out, download=download)
        return notes
    if out.exists():
        raise WorkError(f"--out {out} exists; name another file or remove it")
    if not path.exists():
        raise WorkError(f"{path} is not there; name the files of a set")
    if layout in EXPERT_LAYOUTS:
        return import_experts(resolve(EXPERT_LAYOUTS[layout])(path), out, options, layout)
    if layout in FORMATS and restore_set(path, FORMATS[layout], out):
        return ()
    converted: Converted = convert(resolve(LAYOUTS[layout])(path), options, layout, path)
    with new_set(out, path) as fresh:
        write_set(fresh, converted.content)
    return converted.notes


def _refuse_options(options: ImportOptions) -> None:
    """Raise RecipeError where something is said of a set that says it all itself."""
    said = [item.name for item in fields(options) if getattr(options, item.name) != item.default]
    if said:
        raise RecipeError(
            f"--{said[0].replace('_', '-')} is for files that do not state it; a set of the hub "
            "does: leave it out"
        )


def restore_set(path: Path, form: FormatEntry, out: Path) -> bool:
    """Restore a set that was exported to `path`; False if it is another program's file."""
    file = path / form.file if path.is_dir() else path
    if not file.is_file():
        raise WorkError(f"{file} is not a file; name one, or the folder that was exported")
    arrays, meta = load_object(form.reader)(file)
    if meta is None:
        return False
    write_archive(out, arrays, meta, file)
    return True
