"""Names of the stages, and of the files that they make in a run's folder. Imports no torch."""

from __future__ import annotations

EXPERTS_STAGE = "experts"

COMMITTEE_STAGE = "committee"

PROJECT_STAGE = "project"

MATCH_STAGE = "match"

RECOVER_STAGE = "recover"

SELECT_STAGE = "select"

REFINE_STAGE = "refine"

RELABEL_STAGE = "relabel"

ENCODE_STAGE = "encode"

EVALUATE_STAGE = "evaluate"

EXPERTS = "experts.h5"

COMMITTEE = "committee.h5"

VOTES = "votes.json"

SET = "set.h5"

PROJECTOR = "projector"

ENCODING = "encoding.json"

EVALUATION = "evaluation.json"

SUMMARY = "summary.json"

REPORT = "report.html"

MANIFEST = "manifest.json"

MANIFEST_COPY = ".manifest.json"

METRICS = "metrics.jsonl"

CHECKPOINTS = "checkpoints"

SECONDS = "seconds.json"

# Data that were given in Python: no stage makes them, and a new run's folder may hold them.
GIVEN_DATA = "data.npz"
