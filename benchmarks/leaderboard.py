"""The leaderboard: a row for each student and kind of label of every result; see `tables.py`.

Columns of benchmarks/results/leaderboard.csv: `bytes` are those of all that a receiver needs,
`label_bytes` those of the labels alone (all that is known of a curve of codecs); `seconds` are
those of all stages, on `machine`; `accuracy` and the controls are means over `students` fresh
students, of 1. Controls: `random` of as many real images, `coded` and `herded` of real images in
as many bytes, `whole` of all training images, and `network`, what a quantised network in as many
bytes reaches itself. A field that was not measured is empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from markdown_table import percent, table
from measured import label_bytes, machine_of, seconds_of, source_bytes, summary_of

FILE = "leaderboard.csv"
CONTROLS = ("random", "coded", "herded", "whole", "network")
COLUMNS = (
    "result", "variant", "set", "student", "labels", "bytes", "label_bytes", "seconds", "accuracy",
    "deviation", "students", *CONTROLS, "commit", "date", "machine",
)  # fmt: skip
Row = dict[str, Any]


def rows_of(name: str, result: dict[str, Any]) -> list[Row]:
    """The rows of a result file, none if it holds no accuracies of students on a set."""
    if "summary" in result:
        found = _of_summary(result["summary"])
    elif "variants" in result:
        found = (
            {
                "variant": title,
                "commit": variant.get("commit", result["commit"]),
                "seconds": seconds_of({"summary": summary_of(variant)}),
                **row,
            }
            for title, variant in result["variants"].items()
            for row in _of_summary(summary_of(variant))
        )
    elif "sweep" in result:
        found = _of_sweep(result["sweep"])
    elif "projectors" in result:
        found = _of_projectors(result)
    else:
        return []
    data = result.get("recipe", {}).get("data") or result.get("data", {})
    shared = {
        "result": name,
        "set": data.get("source"),
        "seconds": seconds_of(result),
        "commit": result["commit"],
        "date": result["date"],
        "machine": machine_of(result),
    }
    return [{**shared, **row} for row in found]


def _of_summary(summary: dict[str, Any]) -> Iterator[Row]:
    for student, sources in summary["students"].items():
        for source, stats in sources.items():
            yield {
                "student": student,
                "labels": source,
                "bytes": source_bytes(summary["bytes"], source),
                "label_bytes": label_bytes(summary["bytes"], source),
                **_accuracy(stats),
                **_controls(summary["controls"], student, source),
            }


def _controls(controls: dict[str, Any], student: str, source: str) -> Row:
    # The network in as many bytes is one of its own kind, whatever the student.
    found = dict.fromkeys(CONTROLS, student) | {
        "network": next(iter(controls.get("network", [])), "")
    }
    by_name = {name: controls.get(name, {}).get(key, {}) for name, key in found.items()}
    # Images that no teacher labels have hard labels.
    return {name: by.get(source, by.get("hard")) for name, by in by_name.items()}


def _of_sweep(sweep: dict[str, Any]) -> Iterator[Row]:
    by_images: dict[str, dict[tuple[str, str], Row]] = {}
    for point in sweep["points"]:
        by_images.setdefault(point["images"], {})[point["codec"], point["student"]] = point
    for key, point in by_images["set"].items():
        yield {
            "set": sweep["set"],
            "student": point["student"],
            "labels": point["codec"],
            "label_bytes": point["bytes"],
            **_accuracy(point),
            "random": by_images.get("random", {}).get(key),
        }


def _of_projectors(result: dict[str, Any]) -> Iterator[Row]:
    for ipc, students in result["students"].items():
        for student, ways in students.items():
            for way, stats in ways.items():
                sizes = {name: row["bytes"] for name, row in result["projectors"].items()}
                sizes["stored"] = result["stored label bytes"][ipc]
                row = {"variant": f"IPC {ipc}", "student": student, "labels": way}
                yield {**row, "label_bytes": sizes.get(way), **_accuracy(stats)}


def _accuracy(stats: dict[str, Any]) -> Row:
    found = {"accuracy": stats["mean"], "deviation": stats["std"], "students": len(stats["runs"])}
    return {**found, "stats": stats}


def leaderboard_csv(rows: list[Row]) -> str:
    """The leaderboard as text: fractions with four digits, seconds whole."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_field(name, row.get(name)) for name in COLUMNS])
    return out.getvalue()


def _field(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in CONTROLS:
        value = value["mean"]
    if name in ("accuracy", "deviation", *CONTROLS):
        return f"{value:.4f}"
    return f"{value:.0f}" if name == "seconds" else str(value)


def leaderboard_table(rows: list[Row], link: Callable[[str, str], str]) -> list[str]:
    """Rows of runs as Markdown, by data and then by bytes, the least first.

    Args:
        rows: of all results.
        link: of a result file, by its name and what is shown.
    """
    lines = []
    of_runs = [row for row in rows if "variant" not in row and "bytes" in row]
    for row in sorted(of_runs, key=lambda row: (row["set"], row["bytes"], -row["accuracy"])):
        coded = max(filter(None, (row.get("coded"), row.get("herded"))), key=_mean, default=None)
        cells = [link(row["result"], row["result"]), f"`{row['student']}`", f"`{row['labels']}`"]
        cells += [f"{row['bytes']:,}", *map(percent, (row["stats"], row.get("random"), coded))]
        minutes = f"{row['seconds'] / 60:.1f}"
        cells += [
            *(percent(row.get(name)) for name in ("network", "whole")),
            minutes,
            row["machine"],
            row["commit"][:7],
        ]
        lines.append([*cells, row["date"]])
    heads = ["run", "student", "labels", "bytes", "this set", "random", "coded"]
    heads += ["network", "all images"]
    return table([*heads, "minutes", "machine", "commit", "date"], lines, words=3)


def _mean(stats: Mapping[str, Any]) -> float:
    return float(stats["mean"])
