"""Export of a projector, for the command."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import projectors
from distill.data import Preprocess
from distill.errors import WorkError
from distill.names import PROJECTOR_FORMATS, arguments, resolve
from distill.recipes.build import build_data
from distill.recipes.loading import check_recipe
from distill.run.artefacts import MANIFEST, PROJECTOR
from distill.run.manifest import read_manifest
from distill.sets.set_file import read_set
from distill.store.files import new_folder, refuse_links
from projectors import Projector, ProjectorError
from projectors.export.card import model_card
from projectors.export.formats import Exported, write_about
from projectors.files.description import read_description
from synth.images import gather

_CARD = "README.md"


@dataclass(frozen=True)
class ExportRequest:
    """Options of an export.

    Attributes:
        form: a name of `PROJECTOR_FORMATS`.
        tower: spec of the tower, if not where the projector was fitted with it; or None.
        base: whether a PEFT folder holds the tower; None: unless open_clip fetches it by name.
        storage: bits and coder of a compact folder.
        images: a set.h5 on whose images a compact folder is compared; None for the held-out
            images of the run that the projector lies in.
        licence: for the card.
    """

    form: str
    tower: str | None = None
    base: bool | None = None
    storage: projectors.Storage | None = None
    images: Path | None = None
    licence: str = "unknown"


def export_projector(path: Path, out: Path, request: ExportRequest) -> dict[str, Any]:
    """Export the projector at `path` (or of the run there) into the new folder `out`.

    Returns:
        What was written, in plain values.

    Raises:
        WorkError: if it cannot be read, written in this format, or gives other labels there.
    """
    source = path
    if (path / MANIFEST).is_file():
        refuse_links(path)
        source = path / PROJECTOR
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WorkError(f"--out {out} exists and is not empty; name a new folder")
    try:
        tower = projectors.load_tower(request.tower) if request.tower else None
        projector = projectors.load(source, tower=tower)
        with new_folder(out) as folder:
            return _write(source, projector, folder, request)
    except ProjectorError as error:
        raise WorkError(f"export: {error}") from None
    except OSError as error:
        raise WorkError(
            f"export to {out}: {error.strerror or error}; free it, or name another"
        ) from None


def _write(
    source: Path, projector: Projector, folder: Path, request: ExportRequest
) -> dict[str, Any]:
    measured = {"the teacher, when it was fitted": read_description(source).fidelity}
    entry = PROJECTOR_FORMATS[request.form]
    exported: Exported = resolve(entry)(projector, folder, **arguments(entry, request))
    if request.form == "compact":
        images, hard = _held_out(source, projector, request.images)
        measured["the projector before the round trip"] = _round_trip(
            projector, projectors.load(folder, tower=projector.tower), images, hard
        )
    write_about(projector, folder, request.licence)
    files = _sizes(folder)
    card = model_card(
        projector,
        exported,
        files,
        form=request.form,
        fidelity=measured,
        licence=request.licence,
    )
    (folder / _CARD).write_text(card, encoding="utf-8")
    return {
        "format": request.form,
        "files": files,
        "bytes": sum(files.values()),
        "external bytes": 0 if exported.has_base else projector.tower.external_bytes,
        "tower": {"spec": projector.tower.spec, "digest": projector.tower.digest},
        "largest difference": exported.gap,
        "fidelity": {name: None if f is None else asdict(f) for name, f in measured.items()},
        "licence": request.licence,
    }


def _round_trip(
    before: Projector, after: Projector, images: Tensor, hard: Tensor
) -> projectors.Fidelity:
    with torch.no_grad():
        wanted = torch.cat([before(part) for part in images.split(256)])
    return projectors.measure_fidelity(after, images, wanted, hard)


def _held_out(source: Path, projector: Projector, given: Path | None) -> tuple[Tensor, Tensor]:
    """Images in the projector's space, and their hard labels."""
    if given is not None:
        content = read_set(given)
        if content.manifest["class_names"] != projector.classes:
            raise WorkError(f"{given} has other classes than {source}; name a set of the same ones")
        return gather(content.seen_images), content.seen_hard
    run = source.resolve().parent
    if not (run / MANIFEST).is_file():
        raise WorkError(
            f"{source} lies in no run whose held-out images could be used; give --images SET.h5"
        )
    recipe = check_recipe(read_manifest(run / MANIFEST)["recipe"], f"recipe of {run}")
    held_out = build_data(recipe.data).validation
    space = projector.preprocessing
    return Preprocess(space.mean, space.std)(gather(held_out.images)), held_out.labels


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
