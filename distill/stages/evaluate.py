"""Judge the synthetic set of a run by fresh students, and write what was found into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import projectors
from distill.context import Context
from distill.errors import WorkError
from distill.evaluation.results import evaluate
from distill.evaluation.students import Judged
from distill.stages.committee import FILE as COMMITTEE
from distill.stages.committee import load_committee
from distill.stages.project import FOLDER as PROJECTOR
from distill.stages.synthetic import FILE as SET
from distill.store.files import write_json
from distill.store.sets import add_measured, read_set
from projectors import Projector

STAGE = "evaluate"
FILE = "evaluation.json"


def run_evaluate(context: Context) -> None:
    """Make evaluation.json and the attribute `measured` of set.h5."""
    context.run.keep_metrics(STAGE)
    log = context.checkpoint(STAGE) / "jobs.jsonl"
    found = judge(context, context.run.path / SET, log)
    write_json(context.run.path / FILE, found)
    add_measured(context.run.path / SET, found)


def judge(context: Context, path: Path, log: Path) -> dict[str, Any]:
    """Evaluate the set at `path` with the committee and projector of the context's run."""
    table = context.recipe.evaluate
    if table is None:
        raise WorkError("the recipe has no [evaluate] table; add one with its students")
    content = read_set(path)
    data = content.manifest["source"]["digest"]
    if data != context.data.digest:
        raise WorkError(
            f"{path} was made from other data than {context.data.source} holds now; "
            "evaluate it with the data it was made from"
        )
    folder = context.run.path
    has_committee = context.recipe.committee is not None and (folder / COMMITTEE).is_file()
    projector, sizes = _projector(context, folder / PROJECTOR)
    judged = Judged(content, load_committee(context) if has_committee else None, projector)
    return evaluate(context, table, judged, sizes, log)


def _projector(context: Context, folder: Path) -> tuple[Projector | None, tuple[int, int]]:
    if not folder.is_dir():
        return None, (0, 0)
    try:
        projector = projectors.load(folder).to(context.device)
        size = projectors.projector_bytes(folder)
    except projectors.ProjectorError as error:
        raise WorkError(f"projector {folder}: {error}") from None
    return projector, (size.shipped, size.external)
