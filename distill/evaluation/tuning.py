"""How students are trained, chosen on the validation split, for the set and its controls alike.

Choices are made one after the other, each for every kind of student (group, network and label
source) by itself: the optimiser with its learning rate, then how views of the students' own are
mixed, then the temperature of soft labels, then the weight of the class in them. Each trains a
student in every way; the first of equals wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from distill.errors import WorkError
from distill.evaluation.confusion import Grade
from distill.evaluation.jobs import StudentJob, Way
from distill.evaluation.protocols import trained_labels
from distill.recipes.tables.evaluate import EvaluateTable

# Keys of [evaluate] that list candidates.
TRIED = ("optimizers", "lr_factors", "mixes", "temperatures", "hard_weights")

# Trains and tests the students of a task.
Measure = Callable[[str, Sequence[StudentJob]], Sequence[tuple[StudentJob, Grade]]]


@dataclass(frozen=True)
class Choice:
    """One choice.

    Attributes:
        task: its name, for the progress.
        without: label sources whose students have no such choice.
        vary: a way -> the ways to try, of which the first wins where none is better.
    """

    task: str
    without: tuple[str, ...]
    vary: Callable[[Way], list[Way]]


def choices(table: EvaluateTable) -> Iterator[Choice]:
    """The choices that a recipe asks for, in order."""
    if table.optimizers or table.lr_factors:
        names: list[str] = [*table.optimizers] or [""]
        pairs = list(product(names, table.lr_factors or [1.0]))
        yield Choice("choose lr", (), lambda _: [Way(name, factor) for name, factor in pairs])
    if table.mixes:
        kinds = table.mixes
        yield Choice(
            "choose mix", ("learned",), lambda way: [replace(way, mix=kind) for kind in kinds]
        )
    if table.temperatures:
        values = table.temperatures
        yield Choice(
            "choose temperature",
            ("hard", "learned"),
            lambda way: [way, *(replace(way, temperature=value) for value in values)],
        )
    if table.hard_weights:
        weights = table.hard_weights
        yield Choice(
            "choose class weight",
            ("hard",),
            lambda way: [way, *(replace(way, hard_weight=value) for value in weights)],
        )


def choose_ways(
    table: EvaluateTable,
    jobs: Sequence[StudentJob],
    measure: Measure,
    stated: Mapping[str, Way],
) -> dict[str, Way]:
    """The way of every kind for which there was a choice.

    Args:
        table: [evaluate] of the recipe.
        jobs: of the evaluation.
        measure: trains and tests the candidates, on the validation split.
        stated: ways that are known already, by kind; they are not searched for again.
    """
    kinds = {job.kind: job for job in reversed(jobs)}
    found = {kind: stated[kind] for kind in kinds if kind in stated}
    for choice in choices(table):
        trials = [
            _trial(job, way)
            for job in reversed(kinds.values())
            if job.kind not in stated and trained_labels(job) not in choice.without
            for way in choice.vary(found.get(job.kind, Way()))
        ]
        best: dict[str, float] = {}
        for job, grade in measure(choice.task, trials):
            if job.kind not in best or grade.accuracy > best[job.kind]:
                best[job.kind], found[job.kind] = grade.accuracy, job.way
    return found


def plan_trials(table: EvaluateTable, jobs: Sequence[StudentJob]) -> list[StudentJob]:
    """As many trainings of every kind as `choose_ways` takes, whatever wins."""
    kinds = {job.kind: job for job in reversed(jobs)}
    names = {
        trial.name: trial
        for choice in choices(table)
        for job in reversed(kinds.values())
        if trained_labels(job) not in choice.without
        for trial in (_trial(job, way) for way in choice.vary(_first(table)))
    }
    return list(names.values())


def with_ways(jobs: Sequence[StudentJob], ways: Mapping[str, Way]) -> list[StudentJob]:
    """The jobs in the ways that were chosen; others stay as they are."""
    return [replace(job, way=ways.get(job.kind, job.way)) for job in jobs]


def describe_ways(table: EvaluateTable, ways: Mapping[str, Way], images: int) -> dict[str, Any]:
    """What was tried and chosen, on `images` of the validation split, in plain values."""
    return {
        "tried": {key: getattr(table, key) for key in TRIED if getattr(table, key)},
        "chosen": {kind: _plain(way) for kind, way in ways.items()},
        "on": f"{images} validation images, one student of each kind",
    }


def stated_ways(measured: Mapping[str, Any] | None) -> dict[str, Way]:
    """The ways that a set states in its stored evaluation, by kind.

    Raises:
        WorkError: for one that is none.
    """
    tuned = ((measured or {}).get("protocol") or {}).get("tuned") or {}
    return {kind: _read_way(kind, values) for kind, values in tuned.get("chosen", {}).items()}


def _read_way(kind: str, values: Any) -> Way:
    try:
        way = Way(**values)
        checked = EvaluateTable.model_validate(
            {
                "students": ["mlp"],
                "optimizers": [way.optimizer] if way.optimizer else [],
                "lr_factors": [way.lr_factor],
                "temperature": way.temperature,
                "hard_weight": way.hard_weight or 0.0,
                **({"views": "crop", "mixes": [way.mix]} if way.mix else {}),
            }
        )
    except (TypeError, ValueError):
        raise WorkError(
            f"the set states for {kind} a way of training that this version cannot read "
            f"({str(values)[:100]}); choose it again with --anew"
        ) from None
    return replace(way, lr_factor=checked.lr_factors[0])


def _trial(job: StudentJob, way: Way) -> StudentJob:
    return replace(job, seed=0, views=True, way=way, trial=True)


def _first(table: EvaluateTable) -> Way:
    """Some way that the first choice may end with."""
    return next((choice.vary(Way())[0] for choice in choices(table)), Way())


def _plain(way: Way) -> dict[str, Any]:
    """A way without what is left to the protocol."""
    return {key: value for key, value in asdict(way).items() if value not in ("", None)}
