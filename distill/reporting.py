"""Read a run folder and write its report.html."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.build import build_data
from distill.data import RealData
from distill.errors import WorkError
from distill.report import ReportInput, render_report
from distill.stages.synthetic import FILE as SET
from distill.store.files import write_text
from distill.store.run import METRICS, Run, read_manifest
from distill.store.sets import SetFile, read_set
from distill.tables import Recipe

FILE = "report.html"
_REAL_PER_CLASS = 5


def write_report(folder: Path) -> Path:
    """Write report.html of the run in `folder`.

    Raises:
        WorkError: if the folder is not a run that was evaluated.
    """
    manifest = read_manifest(folder / "manifest.json")
    summary = _summary(folder)
    content = read_set(folder / SET)
    recipe = Recipe.model_validate(manifest["recipe"])
    path = folder / FILE
    metrics = Run(folder, manifest).read_metrics() if (folder / METRICS).is_file() else []
    report = _report(manifest, summary, content, build_data(recipe.data), metrics)
    write_text(path, render_report(report))
    return path


def _report(
    manifest: dict[str, Any],
    summary: dict[str, Any],
    content: SetFile,
    data: RealData,
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
        synthetic=_channels_last(content.preprocess.inverse(content.images)),
        synthetic_labels=content.hard.tolist(),
        soft_labels=soft,
        real=real,
        real_labels=real_labels,
        class_names=content.manifest["class_names"],
    )


def _report_bytes(counted: dict[str, Any]) -> dict[str, Any]:
    """Bytes by label source; what undoes a whitening travels with the images."""
    images = counted["images"] + counted["preprocess"]
    return {**counted, "images": images, "labels": counted["sources"]}


def _per_stored(content: SetFile, labels: torch.Tensor) -> np.ndarray:
    """Mean soft label of each stored image over the images that it decodes to."""
    return labels.view(len(content.images), -1, labels.shape[1]).mean(dim=1).numpy()


def _real(data: RealData) -> tuple[np.ndarray, list[int]]:
    labels = data.train.labels
    chosen = torch.cat(
        [torch.nonzero(labels == k).flatten()[:_REAL_PER_CLASS] for k in range(data.classes)]
    )
    return _channels_last(data.train.images[chosen]), labels[chosen].tolist()


def _channels_last(images: torch.Tensor) -> np.ndarray:
    return images.clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise WorkError(
            f"{folder} has no summary.json to report on; run the stage evaluate first"
        ) from None
