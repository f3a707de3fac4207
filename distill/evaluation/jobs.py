"""Which students are trained on what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distill.errors import RecipeError

STUDENTS, RANDOM, WHOLE = "students", "random", "whole"


@dataclass(frozen=True)
class Job:
    """One student to train and test.

    Attributes:
        group: "students" (the synthetic set), "random" (random real images at the same IPC) or
            "whole" (all training images).
        student: network spec.
        labels: hard | learned | votes | projector.
        seed: of the student's weights, of its batches and views, and of the random images.
    """

    group: str
    student: str
    labels: str
    seed: int

    @property
    def name(self) -> str:
        """A name that is the same in every run."""
        return f"{self.group}/{self.student}/{self.labels}/{self.seed}"


def plan_jobs(
    students: Sequence[str],
    seeds: int,
    labels: Sequence[str],
    available: Sequence[str],
    labellers: Sequence[str],
    whole_seeds: int | None = None,
) -> list[Job]:
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
            jobs += [Job(STUDENTS, student, source, seed) for source in chosen]
            jobs += [Job(RANDOM, student, source, seed) for source in controls]
            if whole_seeds is None or seed < whole_seeds:
                jobs.append(Job(WHOLE, student, "hard", seed))
    return jobs


def summarise(accuracies: Iterator[tuple[Job, float]]) -> dict[str, Any]:
    """Group accuracies as {"students": {student: {labels: stats}}, "controls": {...}}."""
    runs: dict[str, dict[str, dict[str, list[float]]]] = {STUDENTS: {}, RANDOM: {}, WHOLE: {}}
    for job, value in accuracies:
        by_label = runs[job.group].setdefault(job.student, {})
        by_label.setdefault(job.labels, []).append(value)

    def stats(group: str) -> dict[str, Any]:
        return {
            student: {source: statistics_of(values) for source, values in by_label.items()}
            for student, by_label in runs[group].items()
        }

    return {
        "students": stats(STUDENTS),
        "controls": {"random": stats(RANDOM), "whole": stats(WHOLE)},
    }


def statistics_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (over the runs, n - 1) and the runs themselves."""
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    return {"mean": mean, "std": spread**0.5, "runs": list(values)}
