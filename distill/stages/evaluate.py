"""Judge the synthetic set of a run by fresh students, and write what was found into it."""

from __future__ import annotations

from distill.evaluation.results import judge
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.artefacts import EVALUATE_STAGE, EVALUATION, SET
from distill.run.context import Context
from distill.sets.set_file import add_measured
from distill.store.files import write_json


def run_evaluate(context: Context, table: EvaluateTable) -> None:
    """Make evaluation.json and the attribute `measured` of set.h5."""
    context.run.keep_metrics(EVALUATE_STAGE)
    log = context.checkpoint(EVALUATE_STAGE).folder / "jobs.jsonl"
    found = judge(context, table, context.run.path / SET, log)
    write_json(context.run.path / EVALUATION, found)
    add_measured(context.run.path / SET, found)
