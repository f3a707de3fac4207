"""Which students are trained on what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.special import stdtrit

from distill.errors import RecipeError
from distill.recipes.key_types import Mixing

STUDENTS, RANDOM, WHOLE = "students", "random", "whole"

# The controls at equal bytes.
CODED, HERDED, NETWORK = "coded", "herded", "network"

CODED_REAL = (CODED, HERDED)

# Label sources that know no stored views; votes, and what encodes them, belong to such views.
WITHOUT_STORED_VIEWS = ("hard", "learned", "projector")

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Way:
    """What may be chosen of how a student is trained.

    Attributes:
        optimizer: "sgd" (with momentum, a falling rate), "adam", "adamw", "muon" or "trajectory"
            (SGD without momentum at the constant rate that the set states); "" for that of the
            student's protocol.
        lr_factor: learning rate, as a multiple of that optimiser's.
        temperature: at which soft labels are matched; None for that of the protocol.
        hard_weight: weight of the class in every soft label; None for the recipe's.
        mix: of what the student sees; None for the recipe's, which is none for hard labels.
    """

    optimizer: str = ""
    lr_factor: float = 1.0
    temperature: float | None = None
    hard_weight: float | None = None
    mix: Mixing | None = None

    @property
    def name(self) -> str:
        """The part of a job's name, which is the same in every run."""
        name = f"/{self.optimizer}" if self.optimizer else ""
        name += "" if self.lr_factor == 1 else f"/lr={self.lr_factor:g}"
        name += "" if self.temperature is None else f"/temperature={self.temperature:g}"
        name += "" if self.hard_weight is None else f"/class={self.hard_weight:g}"
        return name + ("" if self.mix is None else f"/mix={self.mix}")


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
        way: what was chosen of how it is trained.
        trial: it is tested on the validation split, to choose the way, the coding or the bits of
            others.
        ipc: stored real images per class; None for as many as the set stores.
        coding: spec of how real images are coded; "" for as they are.
        epochs: of its training; None for those of its protocol.
        factor: factor^2 real images are formed in each stored one, where they are coded.
        bits: that each of its weights is rounded to before it is tested; None for none.
        classes: it is trained, tested, and can tell apart the first so many; None for all.
    """

    group: str
    student: str
    labels: str
    seed: int
    views: bool = True
    way: Way = Way()
    trial: bool = False
    ipc: int | None = None
    coding: str = ""
    epochs: int | None = None
    factor: int = 1
    bits: int | None = None
    classes: int | None = None

    @property
    def name(self) -> str:
        """A name that is the same in every run."""
        views = "" if self.views else "/plain"
        coded = f"/{self.coding}/{self.ipc}" if self.coding else ""
        coded += "" if self.factor == 1 else f"/factor={self.factor}"
        coded += "" if self.bits is None else f"/bits={self.bits}"
        epochs = "" if self.epochs is None else f"/epochs={self.epochs}"
        classes = "" if self.classes is None else f"/classes={self.classes}"
        trial = "/trial" if self.trial else ""
        return f"{self.kind}/{self.seed}{views}{self.way.name}{coded}{epochs}{classes}{trial}"

    @property
    def kind(self) -> str:
        """What students that differ in seed, views and way have in common."""
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

    The random control is trained on hard labels and on those of every source that can label other
    images, such as teachers: a gain by labels alone must not be taken for one by images.

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
    groups = (STUDENTS, RANDOM)
    return [
        replace(job, views=False)
        for job in jobs
        if job.group in groups and job.labels in WITHOUT_STORED_VIEWS
    ]


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
