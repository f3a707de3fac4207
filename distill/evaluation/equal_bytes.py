"""The controls in as many bytes as the set: what they are, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.evaluation.coded import (
    FINALISTS,
    SEARCH_SHARE,
    CodedReal,
    Draw,
    best_candidates,
    candidates,
    describe_coded,
    fit,
    herded_draw,
    offered_ways,
    own_way,
    plan_coded,
    plan_search,
    random_draw,
)
from distill.evaluation.confusion import Grade
from distill.evaluation.jobs import CODED, HERDED, NETWORK, STUDENTS, StudentJob
from distill.evaluation.small_network import (
    BITS,
    WIDEST,
    SmallNetwork,
    best_bits,
    describe_networks,
    network_spec,
    plan_bits,
    plan_networks,
    widest,
)
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.context import Context
from distill.sets.coded_set import best_coder
from distill.sets.set_file import SetFile

Graded = Sequence[tuple[StudentJob, Grade]]

# Trains and tests the students of a task.
Measure = Callable[[str, Sequence[StudentJob]], Graded]

# Choices by (student, label source).
Choices = Mapping[tuple[str, str], CodedReal]


@dataclass(frozen=True)
class EqualBytes:
    """The controls in as many bytes as the set.

    Attributes:
        coded: random real images, by student and label source.
        herded: herded ones, kept in the same way.
        networks: by label source.
        shared: bytes of what reads the images.
        own: the way in which the set's own images are coded, if they are.
    """

    coded: Choices
    herded: Choices
    networks: Mapping[str, SmallNetwork]
    shared: int
    own: tuple[str, int] | None

    def jobs(self, base: Sequence[StudentJob]) -> list[StudentJob]:
        """The students of the controls, beside those on the set."""
        return [
            *plan_coded(base, CODED, self.coded),
            *plan_coded(base, HERDED, self.herded),
            *plan_networks(base, self.networks),
        ]

    def describe(
        self, result: dict[str, Any], graded: Graded, context: Context, table: EvaluateTable
    ) -> None:
        """Add to an evaluation what the controls are, and how they were chosen."""
        controls = result["controls"]
        describe_coded(controls[CODED], self.coded, context.classes)
        describe_coded(controls[HERDED], self.herded, context.classes)
        describe_networks(controls[NETWORK], graded, self.networks, self.shared)
        result["protocol"] |= self._protocol(context, table)

    def _protocol(self, context: Context, table: EvaluateTable) -> dict[str, Any]:
        """How the controls are made, in plain values."""
        held_out = f"{len(context.data.validation)} validation images"
        short = max(1, table.whole_epochs // SEARCH_SHARE)
        return {
            CODED: coded_protocol(context, table, self.own),
            HERDED: {"as": "hard", "features": "pixels", "kept": "as the random ones"},
            NETWORK: {
                "as": "hard",
                "epochs": table.whole_epochs,
                "images": len(context.data.train),
                "bits": list(BITS),
                "widest": network_spec(WIDEST),
                "on": f"{held_out}, one network of each kind, {short} epochs",
            },
        }


def coded_protocol(
    context: Context, table: EvaluateTable, own: tuple[str, int] | None
) -> dict[str, Any]:
    """How random coded real images are made, in plain values; `own` is the set's way, if any."""
    ways = offered_ways(context, own)
    short = max(1, table.epochs // SEARCH_SHARE)
    return {
        "as": "hard",
        "candidates": list(dict.fromkeys(spec for spec, _ in ways)),
        "factors": sorted({factor for _, factor in ways}),
        "on": f"{len(context.data.validation)} validation images, one student of each kind, "
        f"{short} epochs; the best {FINALISTS} again, {table.epochs} epochs",
        "coder": best_coder(),
    }


def choose_controls(
    context: Context,
    table: EvaluateTable,
    base: Sequence[StudentJob],
    counted: Mapping[str, Any],
    content: SetFile,
    measure: Measure,
) -> EqualBytes:
    """The controls in as many bytes as a set, chosen on the validation split.

    Args:
        context: real images and seeds.
        table: [evaluate] of the recipe.
        base: what `plan_jobs` gave.
        counted: what `count_bytes` gave for the set.
        content: the set.
        measure: trains and tests the candidates.
    """
    shared = counted["preprocess"] + counted["settings"]
    sources = sorted({job.labels for job in base if job.group == STUDENTS})
    budgets = {source: counted["totals"][source] for source in sources}
    own = own_way(content)
    offered = {source: candidates(context, budgets[source], shared, own) for source in sources}
    chosen = choose_ways(table, base, offered, measure)
    seeds = [random_draw(context, seed) for seed in range(table.seeds)]
    herded = [herded_draw(context)]

    def fitted(draws: Sequence[Draw]) -> Choices:
        each = {
            (source, real): fit(context, draws, real, budgets[source], shared)
            for source, real in {(key[1], real) for key, real in chosen.items()}
        }
        return {key: each[key[1], real] for key, real in chosen.items()}

    rooms = {source: budget - shared for source, budget in budgets.items()}
    networks = _choose_networks(context, table, base, rooms, measure)
    return EqualBytes(fitted(seeds), fitted(herded), networks, shared, own)


def choose_ways(
    table: EvaluateTable,
    base: Sequence[StudentJob],
    offered: Mapping[str, Sequence[CodedReal]],
    measure: Measure,
) -> Choices:
    """How random real images are kept: the best of `offered`, by (student, label source).

    Args:
        table: [evaluate] of the recipe.
        base: what `plan_jobs` gave; those of seed 0 on the set are taken up.
        offered: candidates by label source.
        measure: trains and tests the candidates.
    """
    left: Mapping[tuple[str, str], Sequence[CodedReal]] = {
        (job.student, job.labels): offered[job.labels] for job in base if job.group == STUDENTS
    }
    rounds = ((max(1, table.epochs // SEARCH_SHARE), FINALISTS), (None, 1))
    for epochs, count in rounds:
        search = plan_search(base, left, epochs)
        graded = measure("choose coding", [job for job, _ in search])
        values = [grade.accuracy for _, grade in graded]
        found = ((*pair, value) for pair, value in zip(search, values, strict=True))
        left = best_candidates(found, count)
    return {key: best for key, (best,) in left.items()}


def _choose_networks(
    context: Context,
    table: EvaluateTable,
    base: Sequence[StudentJob],
    rooms: Mapping[str, int],
    measure: Measure,
) -> dict[str, SmallNetwork]:
    """The network of each label source, by its bytes."""
    offered = {
        source: [widest(context, bits, room) for bits in BITS] for source, room in rooms.items()
    }
    trials = plan_bits(base, table.whole_epochs, offered)
    graded = measure("choose bits", [job for job, _ in trials])
    return best_bits(
        ((job, network, grade) for (job, network), (_, grade) in zip(trials, graded, strict=True)),
        rooms,
    )
