"""A membership attack on students of a set: whose images was it made from?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.errors import WorkError
from distill.evaluation.checks.rates import Attack, judge_attack
from distill.evaluation.evaluated_set import EvaluatedSet
from distill.evaluation.jobs import RANDOM, STUDENTS, StudentJob
from distill.evaluation.results import open_judged
from distill.evaluation.students import student_load, trained_student
from distill.run.context import Context
from synth.matching.start import draw_counts
from synth.membership import offline_scores, scaled_confidence
from synth.training.prediction import predict

# Seeds of reference students, apart from those of an evaluation's random controls.
_FIRST_REFERENCE = 1000


@dataclass(frozen=True)
class Membership:
    """What attacks on membership found; members are the training images, the others test images.

    Attributes:
        student: network spec.
        labels: that the attacked students were trained with.
        students: how many were attacked together, as whoever has the set can train many.
        references: networks trained on random real images, as many as the set has.
        members: training images that were scored.
        others: test images.
        loss: the loss-threshold attack (Yeom et al. 2018) on students of the set.
        lira: offline likelihood ratios (Carlini et al. 2022) on these.
        control: the same ratios on each reference in turn, of training images that it never saw:
            above chance, where training and test images differ by themselves.
        real: the same ratios on each reference, of the images that it was trained on; what the
            attack finds where real images themselves are given away.
    """

    student: str
    labels: str
    students: int
    references: int
    members: int
    others: int
    loss: Attack
    lira: Attack
    control: Attack
    real: Attack

    @property
    def attacks(self) -> dict[str, Attack]:
        """By name, in the order in which they are told."""
        return {"loss": self.loss, "lira": self.lira, "control": self.control, "real": self.real}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        plain = {key: value for key, value in asdict(self).items() if key not in self.attacks}
        return {**plain, **{name: attack.to_dict() for name, attack in self.attacks.items()}}


def attack_membership(
    context: Context, path: Path, student: str, labels: str, students: int, references: int
) -> Membership:
    """Train students on the set and references on random real images, and attack the former.

    All are trained as `distill evaluate` trains them, the references on hard labels.

    Args:
        context: the set's data, device and engine.
        path: set.h5.
        student: network spec.
        labels: source of the students' labels.
        students: to attack together, at least 1.
        references: at least 3.

    Raises:
        WorkError: if the set has not these labels, or its classes too few training images.
    """
    judged, _ = open_judged(context, path)
    if labels not in judged.available:
        raise WorkError(
            f"the set has no labels {labels}; name one of {', '.join(judged.available)}"
        )
    attacked = [StudentJob(STUDENTS, student, labels, seed) for seed in range(students)]
    compared = [
        StudentJob(RANDOM, student, "hard", _FIRST_REFERENCE + number)
        for number in range(references)
    ]
    found = _trained(context, path, judged, [*attacked, *compared])
    target = torch.stack([found[job.name] for job in attacked]).mean(dim=0)
    scores = torch.stack([found[job.name] for job in compared])
    train, test = len(context.data.train), len(context.data.test)
    unseen = torch.ones(references, train + test, dtype=torch.bool)
    for row, job in enumerate(compared):
        unseen[row, _drawn(context, judged, job)] = False
    # A small class may be drawn by every reference: such an image cannot be scored.
    kept = torch.nonzero(unseen.sum(dim=0) > 1).flatten()
    target, scores, unseen = target[kept], scores[:, kept], unseen[:, kept]
    is_member = kept < train
    control, real = _reference_attacks(scores, unseen, is_member)
    lira = offline_scores(target, scores, unseen)
    return Membership(
        student,
        labels,
        students,
        references,
        int(is_member.sum()),
        int((~is_member).sum()),
        judge_attack(target[is_member], target[~is_member]),
        judge_attack(lira[is_member], lira[~is_member]),
        control,
        real,
    )


def _reference_attacks(scores: Tensor, unseen: Tensor, is_member: Tensor) -> tuple[Attack, Attack]:
    """Each reference attacked by the others, with images that it did not see, and that it saw."""
    control, real, others = [], [], []
    for row in range(len(scores)):
        rest = torch.arange(len(scores)) != row
        found = offline_scores(scores[row], scores[rest], unseen[rest])
        # References differ in how confident they are of all images.
        found = found - found[~is_member].mean()
        control.append(found[is_member & unseen[row]])
        real.append(found[~unseen[row]])
        others.append(found[~is_member])
    non_members, rows = torch.cat(others), len(scores)
    seen = torch.cat(real)
    repeats = len(seen) / int((~unseen).any(dim=0).sum())
    return (
        judge_attack(torch.cat(control), non_members, repeats=(rows, rows)),
        judge_attack(seen, non_members, repeats=(repeats, rows)),
    )


def _trained(
    context: Context, path: Path, judged: EvaluatedSet, jobs: Sequence[StudentJob]
) -> dict[str, Tensor]:
    """The scaled confidence [train + test] of the student of each job, by the job's name."""
    table = context.recipe.table("evaluate")
    found = {}
    with context.progress.task("audit", len(jobs)) as advance:
        done = context.map(
            partial(_confidence, path), jobs, partial(student_load, context, table, judged)
        )
        for job, values in done:
            found[job.name] = torch.from_numpy(values)
            advance(f"{job.group} {job.student}")
    return found


def _confidence(path: Path, context: Context, job: StudentJob) -> NDArray[np.float32]:
    """Train the student of a job, and ask it for all training and test images."""
    judged, _ = open_judged(context, path)
    network = trained_student(context, context.recipe.table("evaluate"), judged, job).eval()
    parts = []
    for name in ("train", "test"):
        images, labels = context.split(name)
        parts.append(scaled_confidence(predict(network, images), labels).cpu())
    return torch.cat(parts).float().numpy()


def _drawn(context: Context, judged: EvaluatedSet, job: StudentJob) -> Tensor:
    """The training images of a reference, as `Context.random_like` drew them."""
    counts = judged.content.hard.bincount(minlength=context.classes).tolist()
    generator = context.generator("evaluate", "random images", job.seed)
    return draw_counts(context.split("train")[1].cpu(), counts, generator)
