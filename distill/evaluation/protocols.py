"""How the student of a job is trained: by the protocol of its labels."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from distill.evaluation.jobs import (
    CODED_REAL,
    NETWORK,
    RANDOM,
    STUDENTS,
    WHOLE,
    WITHOUT_STORED_VIEWS,
    StudentJob,
)
from distill.names import PROTOCOLS
from distill.recipes.tables.evaluate import EvaluateTable
from synth.training.loop import TrainSettings
from synth.training.optimizers import OptimizerName
from synth.training.temperatures import Annealing


def job_settings(
    table: EvaluateTable, job: StudentJob, *, temperature: float, student_lr: float = 0.0
) -> TrainSettings:
    """How the student of a job is trained.

    Args:
        table: the recipe's.
        job: which student.
        temperature: at which the set's votes, or the projector, should be matched.
        student_lr: the learning rate that the set states.
    """
    if table.temperature is not None:
        soft = trained_labels(job) not in ("hard", "learned")
        temperature = table.temperature if soft else 1.0
    if job.way.temperature is not None:
        temperature = job.way.temperature
    settings = _protocol_settings(table, protocol_name(table, job), temperature, student_lr)
    settings = _with_optimizer(settings, table, job.way.optimizer, student_lr)
    return replace(
        settings,
        epochs=job.epochs or (table.whole_epochs if on_whole(job) else settings.epochs),
        lr=settings.lr * job.way.lr_factor,
        precision=table.precision,
        compiled=table.compile == "on",
    )


def protocol_name(table: EvaluateTable, job: StudentJob) -> str:
    """By which of "trajectory", "kd" and "hard" a job's student is trained.

    A recipe may name one for all students on the set and on random images; the whole data set
    always has that of hard labels. So do coded real images, unless the recipe names one.
    """
    if on_whole(job):
        return "hard"
    named = PROTOCOLS[table.protocol].training
    if named:
        return named
    return {"hard": "hard", "learned": "trajectory"}.get(trained_labels(job), "kd")


def trained_labels(job: StudentJob) -> str:
    """The label source that a job's student is trained on: coded real images have hard labels."""
    return "hard" if on_whole(job) or job.group in CODED_REAL else job.labels


def batched_as_labels(table: EvaluateTable, job: StudentJob) -> bool:
    """Whether a job's batches are those of stored labels: so they are of their control too."""
    asked = table.views is None and job.group in (STUDENTS, RANDOM)
    return asked and job.labels not in WITHOUT_STORED_VIEWS


def batch_size(table: EvaluateTable, count: int, classes: int) -> int:
    """Images in a batch of students that are trained on `count` images, at most all of them.

    "auto" is RDED's: 10, 50 and 100 from 1, 10 and 50 images per class on, and twice that from 100
    classes on. Source: Sun et al. 2024, whose code says so for 1, 10 and 50.
    """
    if table.batch_size != "auto":
        return min(table.batch_size, count)
    per_class = count // classes
    size = 10 if per_class < 10 else 50 if per_class < 50 else 100
    return min(2 * size if classes >= 100 else size, count)


def on_whole(job: StudentJob) -> bool:
    """Whether a job's student is trained on the whole data set."""
    return job.group in (WHOLE, NETWORK)


def _protocol_settings(
    table: EvaluateTable, name: str, temperature: float, student_lr: float
) -> TrainSettings:
    if name == "hard":
        return TrainSettings(table.epochs, table.lr, schedule=table.schedule)
    if name == "trajectory":
        return TrainSettings(
            table.epochs, student_lr, momentum=0.0, weight_decay=0.0, schedule="constant"
        )
    return TrainSettings(
        table.view_epochs,
        table.soft_lr,
        table.soft_optimizer,
        weight_decay=table.soft_weight_decay,
        temperature=temperature,
        eta=table.soft_eta,
        average=table.soft_average,
        loss="cosine" if table.gift else "soft",
        annealing=_annealing(table),
        calibrated=table.calibrated,
    )


def _with_optimizer(
    settings: TrainSettings, table: EvaluateTable, name: str, student_lr: float
) -> TrainSettings:
    """The settings with another optimiser, its rate and its schedule; "" for their own."""
    if name == "":
        return settings
    if name == "trajectory":
        return replace(
            settings,
            optimizer="sgd",
            lr=student_lr,
            momentum=0.0,
            weight_decay=0.0,
            schedule="constant",
        )
    if name == "sgd":
        plain = TrainSettings(table.epochs, table.lr, schedule=table.schedule)
        return replace(
            settings,
            optimizer="sgd",
            lr=plain.lr,
            momentum=plain.momentum,
            weight_decay=plain.weight_decay,
            schedule=plain.schedule,
            eta=1.0,
        )
    return replace(
        settings,
        optimizer=cast("OptimizerName", name),
        lr=table.soft_lr,
        weight_decay=table.soft_weight_decay,
        schedule="cosine",
        eta=table.soft_eta,
    )


def _annealing(table: EvaluateTable) -> Annealing | None:
    if table.anneal == "none":
        return None
    return Annealing(table.anneal, table.anneal_every, table.anneal_factor, table.anneal_least)
