"""Tables of ablations: a row a variant, with its gains over the first where there are seeds.

And of the objective: whether its distance ranks the sets of one matching as students do.
"""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from markdown_table import percent, table
from measured import SOURCES, summary_of
from scipy.stats import t as student_t

from distill.evaluation.jobs import statistics_of
from distill.recipes.stages import MAKERS


def ablation_table(result: dict[str, Any]) -> list[str]:
    """One row per variant: students by label source, and random real images beside them."""
    if "seeds" in result:
        return paired_table(result)
    variants = result["variants"]
    students = list(dict.fromkeys(s for v in variants.values() for s in summary_of(v)["students"]))
    rows = []
    for name, variant in variants.items():
        summary = summary_of(variant)
        random = summary["controls"]["random"]
        made = sum(summary["stages"].get(stage, {}).get("seconds", 0) for stage in MAKERS)
        sources = dict.fromkeys(k for by in summary["students"].values() for k in by)
        for source in sources:
            cells = [percent(summary["students"].get(s, {}).get(source)) for s in students]
            control = [random.get(s, {}).get(source) or random[s]["hard"] for s in students]
            beside = ", ".join(percent(cell) for cell in control)
            rows.append([name, SOURCES.get(source, source), *cells, beside, f"{made:,.0f}"])
    seeds = len(next(iter(next(iter(summary["students"].values())).values()))["runs"])
    named = (f"`{student}`" for student in students)
    heads = [result["title"], "labels", *named, "random real images", "seconds"]
    return [*table(heads, rows, words=2), "", f"{seeds} students; seconds to make the images."]


def paired_table(result: dict[str, Any]) -> list[str]:
    """One row per variant of several seeds: means of their students, and what it gains.

    The gain is over the first variant, by the same label source where that has it.
    """
    variants = result["variants"]
    first = next(iter(variants.values()))
    students = list(summary_of(first)["students"])
    rows = []
    for name, variant in variants.items():
        summary = summary_of(variant)
        for source in next(iter(summary["students"].values())):
            cells = []
            for student in students:
                means = seed_means(variant, student, source)
                cells.append(percent(statistics_of(list(means.values()))))
                beside = source if source in summary_of(first)["students"][student] else None
                cells.append("–" if variant is first else gain(means, first, student, beside))
            random = summary["controls"]["random"][students[0]]
            control = percent(random.get(source) or random["hard"])
            rows.append([name, SOURCES.get(source, source), *cells, control])
    named = (head for student in students for head in (f"`{student}`", "gain"))
    seeds, runs = result["seeds"], len(next(iter(seed_runs(first, students[0], None).values())))
    legend = (
        f"Images made {len(seeds)} times, {runs} students each: mean ± deviation of the means of "
        "these; gains over the first row, paired by seed, with 95 % confidence intervals."
    )
    heads = [result["title"], "labels", *named, "random real images"]
    return [*table(heads, rows, words=2), "", legend]


def gain(means: dict[str, float], first: dict[str, Any], student: str, source: str | None) -> str:
    """Mean difference from another variant over the seeds, in points, with its 95 % interval.

    Args:
        means: accuracy by seed.
        first: the other variant.
        student: of both.
        source: of the labels of the other one; its first where None.
    """
    others = seed_means(first, student, source)
    differences = [100 * (mean - others[seed]) for seed, mean in means.items()]
    count = len(differences)
    half = float(student_t.ppf(0.975, count - 1)) * stdev(differences) / count**0.5
    return f"{fmean(differences):+.1f} ± {half:.1f}"


def seed_means(variant: dict[str, Any], student: str, source: str | None) -> dict[str, float]:
    """Mean accuracy of the students of each seed."""
    return {seed: fmean(runs) for seed, runs in seed_runs(variant, student, source).items()}


def seed_runs(variant: dict[str, Any], student: str, source: str | None) -> dict[str, list[float]]:
    """Accuracies of the students of each seed; of the first label source where it is None."""
    found = {}
    for seed, summary in variant["summaries"].items():
        sources = summary["students"][student]
        found[seed] = sources[source or next(iter(sources))]["runs"]
    return found


def rank_table(result: dict[str, Any]) -> list[str]:
    """One row per checkpoint of a matching, and the rank correlations; see `objective_rank.py`."""
    spearman = result["spearman"]
    rows = [
        [
            f"{point['step']:,}",
            f"{point['distance']:.3f}",
            *(percent(point["students"][student]) for student in spearman),
        ]
        for point in result["points"]
    ]
    for key, words in (("distance", "distance"), ("step", "outer steps")):
        values = [f"{ranks[key]['correlation']:+.2f}" for ranks in spearman.values()]
        rows.append([f"rank correlation with {words}", "–", *values])
    heads = ["outer steps", "mean distance", *(f"`{student}`" for student in spearman)]
    legend = f"{result['seeds']} students; distances over the segments of {result['draws']} steps."
    return [*table(heads, rows, words=1), "", legend]
