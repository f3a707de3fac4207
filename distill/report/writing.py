"""Read run folders, and write a report of one or a comparison of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch

from distill.data import AnyPreprocess, RealData
from distill.errors import RecipeError, WorkError
from distill.recipes.build import build_data, with_place
from distill.recipes.loading import check_recipe
from distill.report import ReportInput, render_comparison, render_report
from distill.report.pages import refuse_other_file
from distill.run.artefacts import (
    EVALUATE_STAGE,
    EVALUATION,
    MANIFEST,
    METRICS,
    REPORT,
    SET,
    SUMMARY,
)
from distill.run.folder import Run, summary_of
from distill.run.manifest import read_manifest
from distill.sets.set_file import SetFile, lone_set, read_set
from distill.store.documents import read_json
from distill.store.files import digest_file, write_text
from distill.store.seals import fits, sealed_page
from synth.images import Images

_REAL_PER_CLASS = 5

_SWEEP, _SWEEP_TABLE = "sweep", "sweep.json"

# Errors that values of unexpected types or shapes raise.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def write_report(
    folder: Path,
    sweep: Path | None = None,
    *,
    data: RealData | None = None,
    place: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write report.html of the run in `folder`; of a set alone, a page of what it states.

    Args:
        folder: of the run, or of a grown set; or a set's file, whose page has its name.
        sweep: folder of a sweep of its set; None for the run's subfolder `sweep`, if there is one.
        data: the run's real data, if they are at hand; else they are read.
        place: where they lie now, a path or a source; None for where the recipe says.
        tell: called with one line where the page is without real images, as they cannot be read,
            or without curves, as their rows have changed.

    Raises:
        WorkError: if the folder is not a run that was evaluated, the set states no accuracy, or
            the sweep or the data at `place` cannot be read.
    """
    alone = lone_set(folder)
    if alone is not None:
        return _write_set_page(folder, alone, place, tell)
    path = folder / REPORT
    manifest = read_manifest(folder / MANIFEST)
    if data is None:
        data = _read_data(folder, manifest, place, tell)
    report = _read_report(folder, manifest, data, sweep, tell)
    with _damage_as_error(str(folder)):
        page = render_report(report)
    write_text(path, sealed_page(page))
    return path


def _write_set_page(
    given: Path, file: Path, place: str | None, tell: Callable[[str], None]
) -> Path:
    """Write the page of a set that is no run's: report.html in its folder, or beside its file."""
    page = given / REPORT if given.is_dir() else file.with_suffix(".html")
    refuse_other_file(page)
    content = read_set(file)
    if content.measured is None:
        raise WorkError(
            f"{given} states no accuracy to report on; measure it first: distill evaluate "
            f"{quote(str(given))} --record"
        )
    with _damage_as_error(str(file)):
        about = _about_set(content)
        # A set that was imported or merged without real data names none.
        data = _read_data(file.parent, about, place, tell) if about["data"]["digest"] else None
        report = _report(about, content.measured, content, data, [])
        name = given.resolve().name if given.is_dir() else file.stem
        title = f"{name}: a distilled set of {len(content.hard)}"
        text = render_report(replace(report, title=title))
    write_text(page, sealed_page(text))
    return page


def _about_set(content: SetFile) -> dict[str, Any]:
    """What the manifest of a run would say, of a set alone."""
    stated = content.manifest
    data = {**stated["source"], "classes": stated["class_names"]}
    data = {"source": data.pop("name"), **data}
    merged = [f"{one['images']} of {one['file']} ({one['name']})" for one in data.pop("merged", ())]
    if merged:
        data["images"] = merged
    return {"recipe": stated["recipe"], "seed": stated["seed"], "stages": {}, "data": data}


def write_comparison(
    folders: Sequence[Path], out: Path, tell: Callable[[str], None] = lambda text: None
) -> Path:
    """Write a page to the file `out` that compares the runs in `folders`.

    Args:
        folders: of the runs.
        out: the page.
        tell: called with one line for each run whose curves cannot be drawn.

    Raises:
        WorkError: if a folder is not a run that was evaluated.
    """
    refuse_other_file(out)
    names = _short_names(folders)
    # Pages of several runs show no real images.
    reports = {
        name: _read_report(folder, read_manifest(folder / MANIFEST), None, None, tell)
        for name, folder in zip(names, folders, strict=True)
    }
    with _damage_as_error("these runs"):
        page = render_comparison(reports)
    write_text(out, page)
    return out


@contextmanager
def _damage_as_error(what: str) -> Iterator[None]:
    """Turn damaged files of a run into a one-line error."""
    try:
        yield
    except _MALFORMED as error:
        raise WorkError(
            f"the summary, manifest or metrics of {what} are damaged or foreign "
            f"({type(error).__name__}: {error}); run the recipe again to remake them"
        ) from None


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest endings of the folders' paths that differ."""
    split_paths = [folder.resolve().parts for folder in folders]
    if len(set(split_paths)) < len(split_paths):
        raise WorkError("the same run is named twice; name each run once")
    for count in range(1, max(map(len, split_paths))):
        names = ["/".join(path_parts[-count:]) for path_parts in split_paths]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _read_data(
    folder: Path, manifest: dict[str, Any], place: str | None, tell: Callable[[str], None]
) -> RealData | None:
    """The run's real data, or None where they are not there any more and no place is named."""
    recipe = check_recipe(manifest["recipe"], f"recipe of {folder / MANIFEST}")
    made_from = (manifest.get("data") or {}).get("digest")
    try:
        data = build_data(with_place(recipe, place, folder).data)
        if data.digest != made_from:
            raise WorkError(
                f"{folder} was made from other data than {data.source} holds now; name those with "
                "--data"
            )
    except (WorkError, RecipeError) as error:
        if place is not None:
            raise
        tell(f"no real images are shown: {error}")
        return None
    return data


def _read_report(
    folder: Path,
    manifest: dict[str, Any],
    data: RealData | None,
    sweep: Path | None,
    tell: Callable[[str], None],
) -> ReportInput:
    """What the report of the run in `folder` shows; without data, no real images."""
    summary = _summary(folder, manifest)
    content = read_set(folder / SET)
    metrics = _metrics(folder, manifest, tell)
    with _damage_as_error(str(folder)):
        report = _report(manifest, summary, content, data, metrics)
    return replace(report, sweep=_sweep(sweep or folder / _SWEEP, asked=sweep is not None))


def _sweep(folder: Path, *, asked: bool) -> list[dict[str, Any]]:
    """The points of a sweep's table."""
    path = folder / _SWEEP_TABLE
    if not asked and not path.is_file():
        return []
    try:
        table = read_json(path)
        points = list(table["points"])
    except (OSError, ValueError, KeyError, TypeError):
        raise WorkError(
            f"{path} cannot be read as the table of a sweep; name a folder that `distill sweep` "
            "wrote"
        ) from None
    if fits(table) is False:
        raise WorkError(f"{path} is not as the sweep left it; run the same sweep again")
    return points


def _report(
    manifest: dict[str, Any],
    summary: dict[str, Any],
    content: SetFile,
    data: RealData | None,
    metrics: list[dict[str, Any]],
) -> ReportInput:
    soft = {}
    if content.learned is not None:
        soft["learned"] = _per_stored(content, content.learned.softmax(dim=1))
    if content.votes is not None:
        soft["votes"] = _per_stored(content, content.votes.mean_probabilities())
    real, real_labels = _real(data)
    counted = summary["bytes"]
    return ReportInput(
        title=f"{manifest['recipe'].get('name', 'run')}: a distilled set of {len(content.hard)}",
        recipe=manifest["recipe"],
        manifest=manifest,
        summary={**summary, "bytes": _report_bytes(counted)},
        metrics=metrics,
        synthetic=_Pixels(content.images, content.preprocess),
        synthetic_labels=content.hard.tolist(),
        soft_labels=soft,
        real=real,
        real_labels=real_labels,
        class_names=content.manifest["class_names"],
    )


def _report_bytes(counted: dict[str, Any]) -> dict[str, Any]:
    """Bytes by label source; the inverse of a whitening is counted with the images."""
    images = counted["images"] + counted["preprocess"]
    return {**counted, "images": images, "labels": counted["sources"]}


def _per_stored(content: SetFile, labels: torch.Tensor) -> np.ndarray:
    """Mean soft label of each stored image over the images that it decodes to."""
    return labels.view(len(content.images), -1, labels.shape[1]).mean(dim=1).numpy()


def _real(data: RealData | None) -> tuple[np.ndarray, list[int]]:
    if data is None:
        return np.empty((0, 1, 1, 1), dtype=np.float32), []
    labels = data.train.labels
    chosen = torch.cat(
        [torch.nonzero(labels == k).flatten()[:_REAL_PER_CLASS] for k in range(data.classes)]
    )
    return _channels_last(data.train.images[chosen]), labels[chosen].tolist()


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The pixels of a set's images, of which only those that are shown are read."""

    images: Images
    preprocess: AnyPreprocess

    @property
    def shape(self) -> tuple[int, ...]:
        n, c, h, w = self.images.shape
        return n, h, w, c

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> np.ndarray:
        stored = self.images[index : index + 1]
        return _channels_last(self.preprocess.inverse(stored))[0]


def _channels_last(images: torch.Tensor) -> np.ndarray:
    return images.clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _summary(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What summary.json should say, from what it was made from and is under a digest."""
    if not (folder / SUMMARY).is_file():
        raise WorkError(f"{folder} has no {SUMMARY} to report on; run the stage evaluate first")
    entry = manifest["stages"].get(EVALUATE_STAGE, {"outputs": {}})
    try:
        digest = digest_file(folder / EVALUATION)
        evaluation = read_json(folder / EVALUATION)
    except (OSError, ValueError, RecursionError):
        digest, evaluation = "", {}
    if digest != entry["outputs"].get(EVALUATION):
        raise WorkError(
            f"{folder / EVALUATION} is not as the run left it; run the recipe again to remake it"
        )
    return summary_of(manifest, evaluation)


def _metrics(
    folder: Path, manifest: dict[str, Any], tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rows of the stages whose rows are as they left them."""
    run = Run(folder, manifest)
    changed = [
        name
        for name, entry in manifest["stages"].items()
        if entry.get("metrics", digest := run.digest_metrics(name)) != digest
    ]
    if changed:
        tell(
            f"no curves of {', '.join(changed)} are drawn: their rows in {folder / METRICS} have "
            "changed since the run"
        )
    return [row for row in run.read_metrics() if row.get("stage") not in changed]
