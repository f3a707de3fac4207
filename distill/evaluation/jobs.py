"""Which students are trained on what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.special import stdtrit

from distill.errors import RecipeError

STUDENTS, RANDOM, WHOLE = "students", "random", "whole"

# The controls at equal bytes.
CODED, HERDED, NETWORK = "coded", "herded", "network"

CODED_REAL = (CODED, HERDED)

CONFIDENCE = 0.95


@dataclass(frozen=True)
class StudentJob:
    """One student to train and test.

    Attributes:
        group: "students" (the synthetic set), "random" (random real images at the same IPC),
            "whole" (all training images), or in the bytes of the synthetic set with the labels of
            `labels`: "coded" (as many coded random real images with hard labels as fit),
            "herded" (herded ones), "network" (all training images, and weights that fit).
        student: network spec.
        labels: hard | learned | votes | projector, or the spec of a codec.
        seed: of the student's weights, of its batches and views, and of the random images.
        views: whether its images are augmented.
        lr_factor: its learning rate, as a multiple of its protocol's.
        trial: it is tested on the validation split, to choose the learning rate, the coding or the
            bits of others.
        ipc: stored real images per class; None for as many as the set stores.
        coding: spec of how real images are coded; "" for as they are.
        epochs: of its training; None for those of its protocol.
        factor: factor^2 real images are formed in each stored one, where they are coded.
        bits: that each of its weights is rounded to before it is tested; None for none.
    """

    group: str
    student: str
    labels: str
    seed: int
    views: bool = True
    lr_factor: float = 1.0
    trial: bool = False
    ipc: int | None = None
    coding: str = ""
    epochs: int | None = None
    factor: int = 1
    bits: int | None = None

    @property
    def name(self) -> str:
        """A name that is the same in every run."""
        views = "" if self.views else "/plain"
        factor = "" if self.lr_factor == 1 else f"/lr={self.lr_factor:g}"
        coded = f"/{self.coding}/{self.ipc}" if self.coding else ""
        coded += "" if self.factor == 1 else f"/factor={self.factor}"
        coded += "" if self.bits is None else f"/bits={self.bits}"
        epochs = "" if self.epochs is None else f"/epochs={self.epochs}"
        trial = "/trial" if self.trial else ""
        return f"{self.kind}/{self.seed}{views}{factor}{coded}{epochs}{trial}"

    @property
    def kind(self) -> str:
        """What students that differ in seed, views and learning rate have in common."""
        return f"{self.group}/{self.student}/{self.labels}"


def plan_jobs(
    students: Sequence[str],
    seeds: int,
    labels: Sequence[str],
    available: Sequence[str],
    labellers: Sequence[str],
    whole_seeds: int | None = None,
) -> list[StudentJob]:
    """All jobs of an evaluation: label sources that exist, and the controls.

    The random control is trained on hard labels and, where there are teachers, on their votes:
    a gain by labels alone must not be taken for one by images.

    Args:
        students: network specs.
        seeds: students of each kind.
        labels: label sources that were asked for.
        available: label sources that there are.
        labellers: those of them that can label other images too.
        whole_seeds: students of each kind on the whole data set, which cost most; None for
            `seeds`, 0 for none.

    Raises:
        RecipeError: if none of the label sources exists.
    """
    chosen = [source for source in labels if source in available]
    if not chosen:
        raise RecipeError(
            f"evaluate.labels asks for {', '.join(labels)}, but this set has {', '.join(available)}"
        )
    controls = ["hard"] + [source for source in labellers if source in chosen]
    jobs = []
    for student in students:
        for seed in range(seeds):
            jobs += [StudentJob(STUDENTS, student, source, seed) for source in chosen]
            jobs += [StudentJob(RANDOM, student, source, seed) for source in controls]
            if whole_seeds is None or seed < whole_seeds:
                jobs.append(StudentJob(WHOLE, student, "hard", seed))
    return jobs


def plan_plain(jobs: Sequence[StudentJob]) -> list[StudentJob]:
    """The students and random controls again without augmentation.

    Votes and encoded votes belong to stored views, so they have no such student.
    """
    sources = ("hard", "learned", "projector")
    groups = (STUDENTS, RANDOM)
    return [
        replace(job, views=False) for job in jobs if job.group in groups and job.labels in sources
    ]


def plan_trials(jobs: Sequence[StudentJob], factors: Sequence[float]) -> list[StudentJob]:
    """One student of each kind for every learning rate that is tried."""
    kinds = {job.kind: job for job in reversed(jobs)}
    return [
        replace(job, seed=0, views=True, lr_factor=factor, trial=True)
        for job in reversed(kinds.values())
        for factor in factors
    ]


def choose_factors(accuracies: Iterable[tuple[StudentJob, float]]) -> dict[str, float]:
    """The learning rate of the best trial of each kind; the first of equals."""
    best: dict[str, tuple[float, float]] = {}
    for job, value in accuracies:
        if job.kind not in best or value > best[job.kind][0]:
            best[job.kind] = (value, job.lr_factor)
    return {kind: factor for kind, (_, factor) in best.items()}


def with_factors(jobs: Sequence[StudentJob], factors: Mapping[str, float]) -> list[StudentJob]:
    """The jobs at the learning rates that were chosen; others stay as they are."""
    return [replace(job, lr_factor=factors.get(job.kind, job.lr_factor)) for job in jobs]


def summarise(accuracies: Iterable[tuple[StudentJob, float]]) -> dict[str, Any]:
    """Group accuracies as {"students": {student: {labels: stats}}, "controls": {...}}."""
    groups = (STUDENTS, RANDOM, WHOLE, CODED, HERDED, NETWORK)
    runs: dict[str, dict[str, dict[str, list[float]]]] = {group: {} for group in groups}
    for job, value in accuracies:
        by_label = runs[job.group].setdefault(job.student, {})
        by_label.setdefault(job.labels, []).append(value)

    def stats(group: str) -> dict[str, Any]:
        return {
            student: {source: statistics_of(values) for source, values in by_label.items()}
            for student, by_label in runs[group].items()
        }

    controls = {RANDOM: stats(RANDOM), WHOLE: stats(WHOLE)}
    controls |= {group: stats(group) for group in (CODED, HERDED, NETWORK) if runs[group]}
    return {"students": stats(STUDENTS), "controls": controls}


def statistics_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (over the runs, n - 1), the runs, and the mean's interval."""
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    stats = {"mean": mean, "std": spread**0.5, "runs": list(values)}
    return {**stats, "interval": confidence_interval(mean, spread**0.5, len(values))}


def confidence_interval(mean: float, std: float, count: int) -> list[float] | None:
    """Where the mean accuracy over all seeds lies with 95 % confidence, cut to [0, 1].

    Student's t over the runs: it covers the students' seeds, not the choice of test images.

    Returns:
        Lower and upper bound, or None for a single run, whose spread is unknown.
    """
    if count < 2:
        return None
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * std / count**0.5
    return [max(mean - half, 0.0), min(mean + half, 1.0)]
