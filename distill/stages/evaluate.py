"""Judge the synthetic set of a run by fresh students, and write what was found into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.context import Context
from distill.errors import WorkError
from distill.evaluation.desk import Desk, open_judged
from distill.evaluation.results import evaluate
from distill.opening import opening_of
from distill.stages.synthetic import FILE as SET
from distill.store.files import write_json
from distill.store.sets import add_measured

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
    desk = Desk(opening_of(context), path.resolve())
    judged, sizes = open_judged(context, path)
    if "projector" in table.labels and judged.open_projector is not None:
        _ = judged.online  # a projector that cannot be read is missed here, not hours later
    return evaluate(context, table, judged, sizes, log, desk)
