"""What an evaluation states of how its students are trained."""

from __future__ import annotations

from typing import Any

from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import STUDENTS, StudentJob
from distill.evaluation.protocols import batch_size, protocol_name
from distill.evaluation.students import label_batches, student_settings
from distill.names import PROTOCOLS
from distill.recipes.build import relabel_views
from distill.recipes.key_types import LABEL_SOURCES
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.context import Context

_LOSSES = {"soft": "KL", "cosine": "cosine, with refined labels (GIFT),"}


def protocol(context: Context, table: EvaluateTable, judged: EvaluatedSet) -> dict[str, Any]:
    """How students are trained, in plain values."""
    unlearned = judged.content.learned is None
    sources = [source for source in LABEL_SOURCES if source != "learned" or not unlearned]
    if table.views is not None:
        # Networks among the labels, which the students' own views are labelled by.
        sources += [source for source in table.labels if source in judged.content.encoded]
    return {
        "test_images": len(context.data.test),
        "tested": "once, after the last epoch",
        "seeds": table.seeds,
        "interval": "95 %, Student's t over the seeds",
        **{source: _words(context, table, judged, source) for source in sources},
        "random": "real training images, drawn anew for each seed, at the same images per class",
        "whole": {
            "epochs": table.whole_epochs,
            "seeds": table.seeds if table.whole_seeds is None else table.whole_seeds,
            "images": len(context.data.train),
            "as": "hard",
        },
    }


def _words(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, source: str
) -> dict[str, Any]:
    """The protocol of a label source in plain values."""
    job = StudentJob(STUDENTS, "", source, 0)
    name, settings = protocol_name(table, job), student_settings(table, judged, job)
    momentum = f", momentum {settings.momentum:g}" if settings.momentum else ""
    named = PROTOCOLS[table.protocol]
    size: int | str = table.batch_size
    if size == "auto":
        size = batch_size(table, len(judged.content.seen_hard), context.classes)
    described: dict[str, Any] = {
        "protocol": named.name if named.sets else name,
        "epochs": settings.epochs,
        "batch_size": size,
        "optimizer": f"sgd{momentum}" if settings.optimizer == "sgd" else settings.optimizer,
        "lr": settings.lr,
        "schedule": settings.schedule + (f", eta {settings.eta:g}" if settings.eta != 1 else ""),
    }
    if table.hard_weight and source != "hard":
        described["hard_weight"] = table.hard_weight
    if table.precision != "float32":
        described["precision"] = table.precision
    if name == "kd":
        described["weight_decay"] = settings.weight_decay
        described["average"] = settings.average
        described["loss"] = f"{_LOSSES[settings.loss]} at temperature {settings.temperature:g}"
        if settings.annealing is not None:
            last = settings.temperature_at(settings.epochs - 1)
            described["loss"] += f", {settings.annealing.kind} to {last:.3g}"
        if settings.calibrated:
            described["loss"] += ", the student's calibrated"
        if table.discriminator:
            described["discriminator"] = table.discriminator
    return {**described, **_views_in_words(context, table, judged, source)}


def _views_in_words(
    context: Context, table: EvaluateTable, judged: EvaluatedSet, source: str
) -> dict[str, Any]:
    """What the students of a label source see."""
    online = source not in ("hard", "learned")
    if table.views is not None:
        mixed = {"mix": table.mix} if online else {}
        return {**mixed, "views": table.views.split("_")}
    if source == "votes":
        size, parts, mix = label_batches(judged)
        return {"batch_size": size, "parts": parts, "mix": mix, "views": "as stored"}
    kd = protocol_name(table, StudentJob(STUDENTS, "", source, 0)) == "kd"
    if online or kd:
        return {"views": relabel_views(judged.relabel).families}
    return {"views": context.recipe.data.augmentation}
