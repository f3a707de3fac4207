"""Line charts of rows of metrics, for each stage that has some."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from distill.report.charts import LineChart, Series, line_chart
from distill.report.scales import clean, finite

MetricRow = Mapping[str, Any]

FEATURES = "1 means that classes are as far from the real ones as the mean of all classes is."

Points = list[tuple[float, float]]


def curves(metrics: Sequence[MetricRow]) -> list[Markup]:
    """The charts that have something to show, in the order of the pipeline."""
    stages: defaultdict[str, list[MetricRow]] = defaultdict(list)
    for row in metrics:
        stages[str(row.get("stage"))].append(row)
    plans = [
        *_expert_charts(stages["experts"]),
        *_matching_charts(stages["match"]),
        *_committee_charts(stages["committee"]),
        *_recovery_charts(stages["recover"]),
        *_projector_charts(stages["project"]),
    ]
    return [chart for chart in map(line_chart, plans) if chart]


def overlay(runs: Mapping[str, Sequence[MetricRow]]) -> list[Markup]:
    """Charts with a line for each run: the losses of each way of making a set.

    Args:
        runs: rows of metrics by the run's name.
    """
    wanted = (
        ("match", "distance", "Parameter distance", "outer step", "distance"),
        ("match", "features", "Distance of features", "outer step", "distance"),
        ("match", "student_lr", "Student learning rate", "outer step", "student lr"),
        ("recover", "cross_entropy", "Recovery loss", "step", "cross-entropy"),
        ("project", "kl", "Projector divergence", "step", "KL to the teacher"),
    )
    plans = []
    for stage, key, title, x_label, y_label in wanted:
        series = [
            Series(name, _points([row for row in rows if row.get("stage") == stage], "step", key))
            for name, rows in runs.items()
        ]
        plans.append(LineChart(f"{stage}-{key}", title, "", x_label, y_label, series))
    return [chart for chart in map(line_chart, plans) if chart]


def _points(rows: Iterable[MetricRow], x: str, y: str) -> Points:
    """(x, y) of the rows that have both, in order; a repeated x (a resumed run) keeps the last."""
    by_x = {
        position: row[y]
        for row in rows
        if y in row and (position := finite(row.get(x))) is not None
    }
    return sorted(by_x.items(), key=lambda pair: pair[0])


def _split(rows: Iterable[MetricRow], key: str) -> dict[str, list[MetricRow]]:
    groups: defaultdict[str, list[MetricRow]] = defaultdict(list)
    for row in rows:
        groups[str(row.get(key, ""))].append(row)
    return dict(groups)


def _expert_charts(rows: Sequence[MetricRow]) -> list[LineChart]:
    lines = {
        name: _points(group, "epoch", "accuracy") for name, group in _split(rows, "expert").items()
    }
    series = [Series(f"expert {name}", points, faint=True) for name, points in lines.items()]
    if len(series) == 1:
        series = [Series(series[0].name, series[0].points)]
        note = "One expert, on held-out real data."
    else:
        series.append(Series("mean", _mean(lines.values())))
        note = f"{len(lines)} experts (thin) and their mean, on held-out real data."
    title = "Expert validation accuracy"
    return [LineChart("experts", title, note, "epoch", "accuracy, %", series, percent=True)]


def _mean(lines: Iterable[Points]) -> Points:
    columns: defaultdict[float, list[float]] = defaultdict(list)
    for x, y in (point for points in lines for point in points):
        columns[x].extend(clean([y]))
    return [(x, sum(ys) / len(ys) if ys else float("nan")) for x, ys in sorted(columns.items())]


def _matching_charts(rows: Sequence[MetricRow]) -> list[LineChart]:
    skipped = sum(row.get("applied") is False for row in rows)
    note = "1 means no progress towards the expert's later snapshot."
    if skipped:
        verb = "was" if skipped == 1 else "were"
        note += f" {skipped} of {len(rows):,} updates {verb} not applied."
    distance = [Series("distance", _points(rows, "step", "distance"))]
    rate = [Series("student lr", _points(rows, "step", "student_lr"))]
    features = [Series("features", _points(rows, "step", "features"))]
    entropy = [Series("cross-entropy", _points(rows, "step", "cross_entropy"))]
    title = "Cross-entropy at later snapshots"
    charts = [
        LineChart("distance", "Parameter distance", note, "outer step", "distance", distance),
        LineChart("features", "Distance of features", FEATURES, "outer step", "distance", features),
        LineChart("later", title, "", "outer step", "cross-entropy", entropy),
        LineChart("student-lr", "Student learning rate", "", "outer step", "student lr", rate),
    ]
    if any("bits" in row for row in rows):
        sized = [{**row, "bytes": row["bits"] / 8} for row in rows if "bits" in row]
        size = [Series("bytes", _points(sized, "step", "bytes"))]
        note = "As estimated while they are learned; what is stored fits into the budget."
        charts.append(
            LineChart("coded-bytes", "Bytes of the coded images", note, "outer step", "bytes", size)
        )
    return charts


def _committee_charts(rows: Sequence[MetricRow]) -> list[LineChart]:
    series = [
        Series(name or "member", _points(group, "epoch", "accuracy"))
        for name, group in _split(rows, "member").items()
    ]
    title = "Committee accuracy"
    note = "Each member on held-out real data."
    return [LineChart("committee", title, note, "epoch", "accuracy, %", series, percent=True)]


def _recovery_charts(rows: Sequence[MetricRow]) -> list[LineChart]:
    entropy = [Series("cross-entropy", _points(rows, "step", "cross_entropy"))]
    distance = [Series("statistics", _points(rows, "step", "statistics"))]
    note = "Of the members that were drawn, weighted; each batch of images starts anew."
    title = "Distance of the BatchNorm statistics"
    return [
        LineChart("recovery", "Recovery loss", note, "step", "cross-entropy", entropy),
        LineChart("recovery-statistics", title, "", "step", "distance", distance),
    ]


def _projector_charts(rows: Sequence[MetricRow]) -> list[LineChart]:
    loss = [Series("loss", _points(rows, "step", "loss"))]
    kl = [Series("KL", _points(rows, "step", "kl"))]
    rates = [
        Series(name, points)
        for name in ("agreement", "accuracy")
        if (points := _points(rows, "step", name))
    ]
    title = "Projector against its teacher"
    note = "Agreement: the same top class as the teacher. Accuracy: the true class."
    return [
        LineChart("projector-loss", "Projector training loss", "", "step", "loss", loss),
        LineChart("projector-kl", "Projector divergence", "", "step", "KL to the teacher", kl),
        LineChart("projector-rates", title, note, "step", "percent", rates, percent=True),
    ]
