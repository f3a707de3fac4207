"""One page that compares runs: accuracies side by side, what differs between their recipes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from distill.report.curves import overlay
from distill.report.images import Picture, first_pictures
from distill.report.inputs import ReportInput, class_name
from distill.report.rate_chart import section_of
from distill.report.rates import RatePoint, ordered, rate_points
from distill.report.render import render_page
from distill.report.scales import MISSING, count_text, finite, percent
from distill.report.tables import control_label, items, receiver_bytes
from distill.report.verdict import find_verdict, read_score, source_name

_MAX_CLASSES = 10


@dataclass(frozen=True)
class ComparisonRow:
    """One line of a table: a text for each run."""

    name: str
    values: list[str]
    control: bool = False
    best: int | None = None


@dataclass(frozen=True)
class ComparisonTable:
    """A table with a column for each run."""

    title: str
    rows: list[ComparisonRow]


def render_comparison(reports: Mapping[str, ReportInput]) -> str:
    """One HTML page that compares runs and needs nothing else.

    Args:
        reports: what each run's own report shows, by the run's name; at least two.

    Returns:
        The HTML text, to be written as UTF-8.

    Raises:
        ValueError: for fewer than two runs.
    """
    if len(reports) < 2:
        raise ValueError(f"got {len(reports)} runs; give at least two to compare")
    runs = list(reports.values())
    rates = section_of(_all_points(reports))
    return render_page(
        "compare.html",
        ["tips.js"] if rates else [],
        title=f"{len(runs)} runs compared",
        names=list(reports),
        verdicts=[(name, find_verdict(run.summary)) for name, run in reports.items()],
        warnings=_warnings(reports),
        accuracies=_accuracies(runs),
        bytes=_bytes(runs),
        rates=rates,
        images=_images(reports),
        curves=_curves(reports),
        costs=_costs(runs),
        recipes=_differences([dict(run.recipe) for run in runs]),
        provenance=_differences([_provenance(run) for run in runs], everything=True),
    )


def _warnings(reports: Mapping[str, ReportInput]) -> list[str]:
    """What makes accuracies of these runs incomparable, in words."""
    warnings = []
    digests = {
        name: (run.manifest.get("data") or {}).get("digest") for name, run in reports.items()
    }
    if len(set(digests.values())) > 1:
        warnings.append("The runs were made from different data: their accuracies do not compare.")
    protocols = [run.summary.get("protocol") for run in reports.values()]
    if any(other != protocols[0] for other in protocols[1:]):
        warnings.append(
            "The students were not trained or tested in the same way; the rows under Recipes and "
            "each run’s own report say how."
        )
    return warnings


def _blocks(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    controls = summary.get("controls") or {}
    return [("", summary.get("students") or {}), *((str(k), v or {}) for k, v in controls.items())]


def _accuracies(runs: Sequence[ReportInput]) -> list[ComparisonTable]:
    """For each student, label sources and controls by run."""
    blocks = [_blocks(run.summary) for run in runs]
    students = dict.fromkeys(name for own in blocks for _, block in own for name in block)
    tables = []
    for student in students:
        keys = dict.fromkeys(
            (control, source)
            for own in blocks
            for control, block in own
            for source in block.get(student) or {}
        )
        ordered = sorted(keys, key=lambda key: key[0] != "")
        tables.append(
            ComparisonTable(student, [_accuracy_row(runs, student, *key) for key in ordered])
        )
    return tables


def _accuracy_row(
    runs: Sequence[ReportInput], student: str, control: str, source: str
) -> ComparisonRow:
    texts, means = [], []
    for run in runs:
        block = dict(_blocks(run.summary)).get(control) or {}
        score = read_score(student, source, (block.get(student) or {}).get(source) or {})
        means.append(score.mean if score else float("-inf"))
        spread = f" ± {percent(score.std)}" if score and score.seeds > 1 else ""
        texts.append(f"{percent(score.mean)}{spread}" if score else MISSING)
    name = source_name(source)
    label = control_label(control, source) if control else name
    best = None if control or len(set(means)) == 1 else means.index(max(means))
    return ComparisonRow(label[0].upper() + label[1:], texts, bool(control), best)


def _bytes(runs: Sequence[ReportInput]) -> ComparisonTable | None:
    """What a receiver needs of each run, by label source."""
    sources = dict.fromkeys(
        source
        for run in runs
        for entries in (run.summary.get("students") or {}).values()
        for source in entries
    )
    rows = [
        ComparisonRow(
            source_name(source).capitalize(),
            [receiver_bytes(run.summary.get("bytes") or {}, source)[0] for run in runs],
        )
        for source in sources
    ]
    return ComparisonTable("What a receiver needs, bytes", rows) if rows else None


def _all_points(reports: Mapping[str, ReportInput]) -> dict[str, list[RatePoint]]:
    """The points of all runs by student, each with its run's name."""
    by_student: dict[str, list[RatePoint]] = {}
    for name, run in reports.items():
        for student, points in rate_points(run.summary, run.sweep).items():
            named = [replace(point, name=f"{name}: {point.name}") for point in points]
            by_student.setdefault(student, []).extend(named)
    return {name: ordered(own) for name, own in by_student.items()}


def _images(reports: Mapping[str, ReportInput]) -> list[tuple[str, list[list[Picture]]]]:
    """For each of the first classes that all runs share, the first images of every run."""
    names = [list(run.class_names) for run in reports.values()]
    if any(other != names[0] for other in names[1:]):
        return []
    return [
        (
            class_name(names[0], label),
            [first_pictures(run, label, name) for name, run in reports.items()],
        )
        for label in range(min(len(names[0]), _MAX_CLASSES))
    ]


def _curves(reports: Mapping[str, ReportInput]) -> list[Markup]:
    return overlay({name: run.metrics for name, run in reports.items()})


def _costs(runs: Sequence[ReportInput]) -> ComparisonTable | None:
    """Seconds of each stage, their sum, and the highest memory."""
    stages = [run.manifest.get("stages") or {} for run in runs]
    names = dict.fromkeys(name for own in stages for name in own)
    rows = [ComparisonRow(name, [_seconds(own.get(name)) for own in stages]) for name in names]
    if not rows:
        return None
    sums = [{"seconds": sum(finite(s.get("seconds")) or 0.0 for s in o.values())} for o in stages]
    peaks = [max((finite(s.get("peak_memory_bytes")) or 0.0 for s in o.values()), default=0.0)
             for o in stages]  # fmt: skip
    rows.append(ComparisonRow("all stages, seconds", [_seconds(total) for total in sums]))
    rows.append(ComparisonRow("peak memory, MB", [count_text(peak / 1e6) for peak in peaks]))
    return ComparisonTable("Seconds of each stage", rows)


def _seconds(stage: Mapping[str, Any] | None) -> str:
    number = finite((stage or {}).get("seconds"))
    return MISSING if number is None else f"{number:,.1f}"


def _provenance(run: ReportInput) -> dict[str, Any]:
    manifest = run.manifest
    data = manifest.get("data") or {}
    outputs = {
        name: dict(stage.get("outputs") or {})
        for name, stage in (manifest.get("stages") or {}).items()
    }
    return {
        "seed": manifest.get("seed"),
        "device": manifest.get("device"),
        "data": {"source": data.get("source"), "digest": data.get("digest")},
        "versions": manifest.get("versions") or {},
        "outputs": outputs,
    }


def _differences(
    values: Sequence[Mapping[str, Any]], *, everything: bool = False
) -> list[ComparisonRow]:
    """Dotted keys and each run's text; only those that differ, unless `everything`."""
    texts = [{item.key: item.value for item in items(value)} for value in values]
    keys = dict.fromkeys(key for text in texts for key in text)
    rows = [ComparisonRow(key, [text.get(key, MISSING) for text in texts]) for key in keys]
    return [row for row in rows if everything or len(set(row.values)) > 1]
