"""Class-incremental evaluation: classes arrive in groups, and students know those seen so far.

After each step a fresh student is trained on the set's images of the classes seen so far, and
tested on the test images of these, as GDumb does with its memory. Source: Prabhu et al. 2020;
condensed sets are compared so by Zhao and Bilen 2023 (DM).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from distill.errors import RecipeError, WorkError
from distill.evaluation.confusion import Grade
from distill.evaluation.jobs import RANDOM, STUDENTS, StudentJob, Way, statistics_of
from distill.evaluation.results import Evaluation, open_judged
from distill.evaluation.stated import protocol
from distill.evaluation.tuning import choose_ways, describe_ways, with_ways
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.context import Context

# Labels of single images; those of views are made, and batched, for all classes together.
SOURCES = ("hard", "learned")


def classes_after(classes: int, steps: int) -> list[int]:
    """How many classes are known after each step; groups differ by one class at most.

    Args:
        classes: k.
        steps: groups, from 1 to k.

    Raises:
        RecipeError: for more steps than classes.
    """
    if steps > classes:
        raise RecipeError(
            f"{steps} steps are asked for, but the set has {classes} classes; one class at least "
            f"arrives with each step, so give --steps of at most {classes}"
        )
    return [classes * (step + 1) // steps for step in range(steps)]


def plan_steps(
    students: Sequence[str],
    seeds: int,
    labels: Sequence[str],
    available: Sequence[str],
    counts: Sequence[int],
) -> list[StudentJob]:
    """A student for every step, network, seed and label source, and the random ones beside them.

    Args:
        students: network specs.
        seeds: students of each kind.
        labels: label sources that were asked for.
        available: label sources that there are.
        counts: classes that are known after each step.

    Raises:
        RecipeError: if no label source of single images is among them.
    """
    chosen = [source for source in labels if source in SOURCES and source in available]
    if not chosen:
        raise RecipeError(
            f"evaluate.labels asks for {', '.join(labels)}, but steps train on hard or learned "
            "labels: labels of views are made for all classes together; give --labels hard"
        )
    return [
        StudentJob(group, student, source, seed, classes=count)
        for student in students
        for seed in range(seeds)
        for count in counts
        for group, sources in ((STUDENTS, chosen), (RANDOM, ["hard"]))
        for source in sources
    ]


def judge_steps(
    context: Context,
    table: EvaluateTable,
    path: Path,
    log: Path,
    steps: int,
    stated: Mapping[str, Way] | None = None,
) -> dict[str, Any]:
    """Train and test all students of all steps; returns what `evaluate --steps --json` prints.

    Args:
        context: data, device, seeds and engine.
        table: [evaluate] of its recipe: students, seeds, labels and their training.
        path: the set.h5 to evaluate.
        log: a file of finished jobs, see `judge`.
        steps: groups in which the classes arrive, in the order of their numbers.
        stated: ways of training by kind, which are not searched for again.

    Raises:
        RecipeError: for more steps than classes, or labels of views alone.
        WorkError: if a group has no image in the set, or none to test.
    """
    counts = classes_after(context.classes, steps)
    judged, _ = open_judged(context, path)
    _check_groups(counts, judged.content.hard, "the set")
    _check_groups(counts, context.data.test.labels, "the test split")
    jobs = plan_steps(table.students, table.seeds, table.labels, judged.available, counts)
    evaluation = Evaluation(context, path.resolve(), log)
    # How students are trained is chosen where they know all classes, and holds for all steps.
    last = [job for job in jobs if job.classes == counts[-1]]
    ways = choose_ways(table, last, evaluation.measure, stated or {})
    graded = evaluation.measure("evaluate", with_ways(jobs, ways))
    result = _by_kind(graded, counts)
    words = protocol(context, table, judged)
    result["protocol"] = {
        **{key: words[key] for key in ("seeds", "interval", *SOURCES) if key in words},
        "order": "classes arrive in the order of their numbers",
        "tested": "on the test images of the classes seen so far, after the last epoch",
        RANDOM: "real training images of the classes seen so far, as many of each as the set has",
        "average": "the mean over steps of a seed's accuracies",
    }
    if ways:
        tuned = describe_ways(table, ways, len(context.data.validation))
        result["protocol"]["tuned"] = tuned
    return {"steps": _described(context, counts, judged.content.hard), **result}


def _described(context: Context, counts: Sequence[int], hard: Tensor) -> list[dict[str, Any]]:
    """What each step has: its new classes, all that are known, their images in set and test."""
    names, tested = context.data.class_names, context.data.test.labels
    return [
        {
            "new": list(names[before:count]),
            "classes": count,
            "images": int((hard < count).sum()),
            "test_images": int((tested < count).sum()),
        }
        for before, count in pairwise([0, *counts])
    ]


def _check_groups(counts: Sequence[int], labels: Tensor, where: str) -> None:
    """Raise WorkError if no image of some group of classes is among the labels [n]."""
    for start, count in pairwise([0, *counts]):
        if not bool(((labels >= start) & (labels < count)).any()):
            raise WorkError(
                f"{where} has no image of classes {start} to {count - 1}, which arrive together; "
                "give fewer --steps"
            )


def _by_kind(
    graded: Sequence[tuple[StudentJob, Grade]], counts: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """{"students": {student: {labels: {"steps": [stats, ...], "average": stats}}}, "controls"}."""
    found: dict[tuple[str, str, str], dict[tuple[int, int], float]] = {}
    for job, one in graded:
        kind = found.setdefault((job.group, job.student, job.labels), {})
        kind[job.classes or counts[-1], job.seed] = one.accuracy
    result: dict[str, dict[str, Any]] = {STUDENTS: {}, "controls": {RANDOM: {}}}
    for (group, student, labels), values in found.items():
        seeds = sorted({seed for _, seed in values})
        rows = [[values[count, seed] for seed in seeds] for count in counts]
        averages = [sum(column) / len(counts) for column in zip(*rows, strict=True)]
        groups = result if group == STUDENTS else result["controls"]
        groups[group].setdefault(student, {})[labels] = {
            "steps": [statistics_of(row) for row in rows],
            "average": statistics_of(averages),
        }
    return result
