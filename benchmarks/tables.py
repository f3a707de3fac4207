"""Make the tables of README.md and of three pages of docs/ from benchmarks/results/*.json.

    python benchmarks/tables.py           # rewrite the pages, and the leaderboard
    python benchmarks/tables.py --check   # exit 1 if one of them is not up to date

A table lies between `<!-- table NAME -->` and `<!-- end NAME -->`. NAME is that of a result file,
or of a table of its own: `against-coded`, sets beside real images in as many bytes;
`against-random`, beside as many real images; `gradient-at-20`, the gradient at 20 inner steps;
`leaderboard`, rows of all runs. The rows of all results are in benchmarks/results/leaderboard.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
from itertools import product
from pathlib import Path
from typing import Any

from ablation_tables import ablation_table, rank_table
from bytes_tables import AGAINST_CODED, against_coded, labels_table, ways_table
from code_state import RESULTS, ROOT
from cost_tables import (
    TIMES,
    epochs_table,
    gradient_table,
    pipeline_table,
    plans_table,
    precision_table,
    workers_table,
)
from leaderboard import FILE, Row, leaderboard_csv, leaderboard_table, rows_of
from markdown_table import percent, table
from measured import SOURCES, seconds_of, source_bytes, summary_of

PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("results.md", "paper.md", "methods/why.md")),
)
BLOCK = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)
# Beside random real images: what was made, student, labels, and the variant of an ablation too.
AGAINST_RANDOM = (
    ("glyphs-labels", "1,000 characters, 10 per class, mosaics", "convnet3:width=32", "votes", ""),
    ("fashion-mnist-quick", "Fashion-MNIST (20,000), 1 per class", "resnet18:width=8", "votes", ""),
    ("fashion-mnist-quick", "Fashion-MNIST (20,000), 1 per class", "resnet18:width=8", "hard", ""),
    (
        "fashion-mnist-committee",
        "Fashion-MNIST (20,000), 10 per class, recovered",
        "resnet18:width=8",
        "votes",
        "IPC 10, three members in pairs",
    ),
    *(
        (f"fashion-mnist-ipc{ipc}-network", f"Fashion-MNIST, {ipc} per class, {coded}", *who, "")
        for ipc, coded, students in (
            (10, "in 2 bits", ("resnet18:width=8", "convnet3:width=32")),
            (50, "in two tones", ("resnet18:width=8", "convnet3:width=32")),
        )
        for who in product(students, ("hard", "teacher:bits=4"))
    ),
    *(
        (
            f"cifar10-ipc{ipc}-matching",
            f"CIFAR-10 (JPEG copies), {ipc} per class",
            student,
            "votes",
            "exact gradient, hard labels",
        )
        for ipc, student in product((1, 10), ("resnet18:width=8", "convnet3:width=32"))
    ),
    ("fashion-mnist-ipc50", "Fashion-MNIST, 50 per class", "convnet3:width=128", "hard", ""),
    ("fashion-mnist-ipc10", "Fashion-MNIST, 10 per class", "convnet3:width=128", "hard", ""),
    ("fashion-mnist-ipc1", "Fashion-MNIST, 1 per class", "convnet3:width=128", "hard", ""),
    ("digits", "handwritten digits, 1 per class", "convnet3:width=32", "votes", ""),
    ("digits", "handwritten digits, 1 per class", "convnet3:width=32", "hard", ""),
)


def machine_words(machine: dict[str, Any]) -> str:
    """The class of a machine, with its GPU if the work was done there."""
    cores = f"{machine['cores']} cores of {machine['cpu']}"
    return f"{machine['gpu']} with {cores}" if "gpu" in machine else cores


def made_by(result: dict[str, Any], link: str) -> str:
    """How a result was made, the end of a table's legend; the file has the whole command."""
    parts = result.get("made", {"": result})
    made = next((parts[name] for name in TIMES if name in parts), None) or parts[""]
    command = textwrap.shorten(made["command"], 100, placeholder=" ...")
    seed = f", seed {made['seed']}" if "seed" in made else ""
    return f"`{command}`{seed}, {machine_words(made['machine'])}, {made['date']}: {link}."


def run_table(result: dict[str, Any]) -> list[str]:
    """Students by label sources, with the controls, as Markdown."""
    summary = result["summary"]
    students = list(summary["students"])
    rows = []
    counted = summary["bytes"]
    groups = (
        ("**this set**", summary["students"], "", True),
        ("random real images, same IPC", summary["controls"]["random"], "", False),
        *equal_bytes(summary["controls"]),
        (
            f"all {summary['protocol']['whole']['images']:,} training images",
            summary["controls"]["whole"],
            "",
            False,
        ),
    )
    for title, group, of_bytes, has_bytes in groups:
        others = sorted({name for by_label in group.values() for name in by_label} - {*SOURCES})
        for source, label in {**SOURCES, **{name: f"`{name}`" for name in others}}.items():
            cells = [group.get(student, {}).get(source) for student in students]
            if any(cell is not None for cell in cells):
                size = f"{source_bytes(counted, source):,}" if has_bytes else "–"
                words = f"{of_bytes}{label}" if source != "hard" else label
                rows.append([title, words, *(percent(cell) for cell in cells), size])
    seconds = seconds_of(result) or 0.0
    peak = max(stage["peak_memory_bytes"] for stage in summary["stages"].values())
    seeds = len(next(iter(next(iter(summary["students"].values())).values()))["runs"])
    heads = ["trained on", "labels", *(f"`{name}`" for name in students), "bytes"]
    legend = (
        f"{seeds} student{'s' * (seeds > 1)}; {seconds / 60:.1f} minutes, {peak / 2**30:.1f} GiB."
    )
    legend += network_words(summary["controls"])
    return [*table(heads, rows, words=2), "", legend]


def equal_bytes(controls: dict[str, Any]) -> list[tuple[str, dict[str, Any], str, bool]]:
    """Coded real images in as many bytes as the set, where they were evaluated.

    Titles, accuracies, what stands before a label source whose bytes they have, and whether bytes
    are shown.
    """
    return [
        (
            f"{name} real images, coded into as many bytes",
            controls[group],
            "hard labels, bytes of ",
            False,
        )
        for group, name in (("coded", "random"), ("herded", "herded"))
        if group in controls
    ]


def network_words(controls: dict[str, Any]) -> str:
    """What the network in as many bytes reaches itself, for a legend."""
    return "".join(
        f" In as many bytes, a `{spec}` with weights of {stats['bits']} bits reaches "
        f"{percent(stats)} itself."
        for spec, sources in controls.get("network", {}).items()
        for stats in list(sources.values())[:1]
    )


def curve_table(result: dict[str, Any]) -> list[str]:
    """A sweep: one row per codec, from most bytes to least, then the controls, as Markdown."""
    points = result["sweep"]["points"]
    students = list(dict.fromkeys(point["student"] for point in points))
    table_rows = []
    by_codec: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        by_codec.setdefault(point["codec"], []).append(point)
    for codec, rows in sorted(by_codec.items(), key=lambda item: -item[1][0]["bytes"]):
        first = rows[0]
        cells = [_accuracy(rows, "set", student) for student in students]
        control = ", ".join(_accuracy(rows, "random", student) for student in students)
        ratio = f"{first['ratio']:,.1f}x"
        sizes = [f"{first['bytes']:,}", ratio, f"{first['shipped']:,}", f"{first['external']:,}"]
        table_rows.append([f"`{codec}`", *sizes, *cells, control])
    named = (f"`{student}`" for student in students)
    heads = ["labels", "bytes", "smaller by", "shipped", "to fetch", *named, "`random`"]
    return [*table(heads, table_rows), "", f"{len(points[0]['runs'])} students."]


def _accuracy(rows: list[dict[str, Any]], images: str, student: str) -> str:
    """A cell of `curve_table`."""
    for row in rows:
        if (row["images"], row["student"]) == (images, student):
            text = percent(row)
            return text if row["dominated"] or images == "random" else f"**{text}**"
    return "–"


def projector_table(result: dict[str, Any]) -> list[str]:
    """The projector ablation: one row per way of labelling, as Markdown."""
    students, projectors = result["students"], result["projectors"]
    columns = [(ipc, spec) for ipc, by in students.items() for spec in by]
    rows = []
    for row in next(iter(students[columns[0][0]].values())):
        cells = [percent(students[ipc][spec][row]) for ipc, spec in columns]
        size, own, agreement = "–", "–", "–"
        if row in projectors:
            size = f"{projectors[row]['bytes']:,}"
            own = f"{100 * projectors[row]['test accuracy']:.1f}"
            agreement = f"{100 * projectors[row]['validation']['agreement']:.1f}"
        elif row == "stored":
            size = " / ".join(f"{count:,}" for count in result["stored label bytes"].values())
        rows.append([row, *cells, size, own, agreement])
    options = result["options"]
    external = max(projector["external bytes"] for projector in projectors.values())
    named = (f"`{spec}`, IPC {ipc}" for ipc, spec in columns)
    return [
        *table(["labels", *named, "label bytes", "its own accuracy", "agreement"], rows),
        "",
        f"{options['seeds']} students of {options['epochs']} epochs; tower `{options['tower']}`, "
        f"{external:,} bytes, counted apart.",
    ]


def refinement_table(result: dict[str, Any]) -> list[str]:
    """Students on a set in few bytes, with and without refinement, as Markdown."""
    rows = []
    for budget, rules in result["budgets"].items():
        cells = [f"{int(budget):,}", *(percent(rule) for rule in rules.values())]
        plain = rules["plain"]["squared_error"]
        for name in ("pixels", "features"):
            cells.append(f"{100 * (rules[name]['squared_error'] / plain - 1):+.0f} %")
        rows.append(cells)
    ways = ["by pixels", "by features"]
    return [
        *table(["bytes", "without", *ways, f"squared error {ways[0]}", ways[1]], rows, words=0),
        "",
        f"{result['images']} images, {len(result['seeds'])} students (`{result['student']}`, "
        f"{result['epochs']} epochs, hard labels) on {result['validation_images']} held-out "
        f"training images; features of {result['networks']} random network(s).",
    ]


def against_random(folder: Path) -> list[str]:
    """Sets beside random real images of the same number and labels, the least gain first."""
    rows = []
    for name, title, student, source, variant in AGAINST_RANDOM:
        ours, random = set_and_random(read_result(name), student, source, variant)
        gain = round(100 * ours["mean"], 1) - round(100 * random["mean"], 1)
        cells = [link_to(name, folder, title), SOURCES.get(source, f"`{source}`"), f"`{student}`"]
        rows.append((gain, [*cells, percent(ours), percent(random), f"{gain:+.1f}"]))
    heads = ["images", "labels", "student", "this set", "random real images", "gain"]
    return table(heads, (cells for _, cells in sorted(rows)), words=3)


def set_and_random(
    result: dict[str, Any], student: str, source: str, variant: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A student's accuracies on the set and on random real images, of a run or of a sweep."""
    if "sweep" in result:
        points = [
            point
            for point in result["sweep"]["points"]
            if (point["codec"], point["student"]) == ("full-fp16", student)
        ]
        by_images = {point["images"]: point for point in points}
        return by_images["set"], by_images["random"]
    summary = summary_of(result["variants"][variant] if variant else result)
    return summary["students"][student][source], summary["controls"]["random"][student][source]


def read_result(name: str) -> dict[str, Any]:
    """The result file of that name."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def all_rows() -> list[Row]:
    """The rows of the leaderboard, by the names of the result files."""
    names = sorted(path.stem for path in RESULTS.glob("*.json"))
    return [row for name in names for row in rows_of(name, read_result(name))]


def link_to(name: str, folder: Path, text: str) -> str:
    """A Markdown link to a result file, from a page in `folder`."""
    return f"[{text}]({os.path.relpath(RESULTS, folder)}/{name}.json)"


def updated(text: str, folder: Path) -> str:
    """The text of a page in `folder` with every table regenerated."""

    def make(match: re.Match[str]) -> str:
        name = match["name"]
        if name == "against-random":
            lines = against_random(folder)
        elif name == "leaderboard":
            lines = leaderboard_table(all_rows(), lambda name, text: link_to(name, folder, text))
        elif name == "against-coded":
            lines = against_coded(
                (link_to(name, folder, title), read_result(name)) for name, title in AGAINST_CODED
            )
        elif name == "gradient-at-20":
            result = read_result("gradient")
            lines = gradient_table(result, ("20",))
            lines[-1] += f" {made_by(result, link_to('gradient', folder, 'gradient.json'))}"
        else:
            result = read_result(name)
            make_table = next((kind for key, kind in KINDS.items() if key in result), run_table)
            lines = make_table(result)
            lines[-1] += f" {made_by(result, link_to(name, folder, f'{name}.json'))}"
        return "\n".join([match[1] + lines[0], *lines[1:], match[3]])

    return BLOCK.sub(make, text)


# The table of a result file by a key that it alone has; others are runs.
KINDS = {
    "first_epoch_seconds": epochs_table,
    "differences": precision_table,
    "peak_bytes": gradient_table,
    "seconds_one_thread": gradient_table,
    "variants": ablation_table,
    "sweep": curve_table,
    "projectors": projector_table,
    "stages": pipeline_table,
    "ratio": workers_table,
    "plans": plans_table,
    "budgets": refinement_table,
    "lr": labels_table,
    "on": ways_table,
    "spearman": rank_table,
}


def main() -> None:
    """Rewrite or check the pages and the leaderboard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    made = {RESULTS / FILE: leaderboard_csv(all_rows())}
    made |= {page: updated(page.read_text(encoding="utf-8"), page.parent) for page in PAGES}
    for path, text in made.items():
        if not options.check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name} is not what benchmarks/tables.py makes; run it")


if __name__ == "__main__":
    main()
