"""How the student of a job is trained: by the protocol of its labels."""

from __future__ import annotations

from dataclasses import replace

from distill.evaluation.jobs import CODED_REAL, NETWORK, WHOLE, StudentJob
from distill.recipes.tables.evaluate import EvaluateTable
from synth.training.loop import TrainSettings
from synth.training.temperatures import Annealing


def job_settings(
    table: EvaluateTable, job: StudentJob, *, temperature: float, student_lr: float = 0.0
) -> TrainSettings:
    """How the student of a job is trained.

    Args:
        table: the recipe's.
        job: which student.
        temperature: at which students match votes and projector.
        student_lr: the learning rate that the set states for learned labels.
    """
    settings = _protocol_settings(table, protocol_name(table, job), temperature, student_lr)
    return replace(
        settings,
        epochs=job.epochs or (table.whole_epochs if on_whole(job) else settings.epochs),
        lr=settings.lr * job.lr_factor,
        precision=table.precision,
        compiled=table.compile == "on",
    )


def protocol_name(table: EvaluateTable, job: StudentJob) -> str:
    """Which of the protocols "trajectory", "kd" and "hard" a job's student is trained by.

    A recipe may name one for all students on the set and on random images; the whole data set
    always has that of hard labels. So do coded real images, unless the recipe names one.
    """
    if on_whole(job):
        return "hard"
    if table.protocol != "auto":
        return table.protocol
    labels = "hard" if job.group in CODED_REAL else job.labels
    return {"hard": "hard", "learned": "trajectory"}.get(labels, "kd")


def on_whole(job: StudentJob) -> bool:
    """Whether a job's student is trained on the whole data set."""
    return job.group in (WHOLE, NETWORK)


def _protocol_settings(
    table: EvaluateTable, name: str, temperature: float, student_lr: float
) -> TrainSettings:
    if name == "hard":
        return TrainSettings(table.epochs, table.lr)
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


def _annealing(table: EvaluateTable) -> Annealing | None:
    if table.anneal == "none":
        return None
    return Annealing(table.anneal, table.anneal_every, table.anneal_factor, table.anneal_least)
