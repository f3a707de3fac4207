"""Make the README's tables from benchmarks/results/*.json.

    python benchmarks/tables.py           # rewrite README.md
    python benchmarks/tables.py --check   # exit 1 if it is not up to date

A table stands between `<!-- table NAME -->` and `<!-- end NAME -->`; NAME is a result file's.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)
SOURCES = {
    "hard": "hard labels",
    "learned": "learned soft labels",
    "votes": "committee votes",
    "projector": "projector",
}
SET_STAGES = ("match", "recover", "select")  # those that make the images


def percent(stats: dict[str, Any] | None) -> str:
    """Mean and standard deviation in percent, or a dash."""
    if stats is None:
        return "–"
    return f"{100 * stats['mean']:.1f} ± {100 * stats['std']:.1f}"


def machine_words(machine: dict[str, Any]) -> str:
    """The class of a machine, with its GPU if the work was done there."""
    cores = f"{machine['cores']} cores of {machine['cpu']}"
    return f"{machine['gpu']} with {cores}" if "gpu" in machine else cores


def made_by(result: dict[str, Any]) -> str:
    """How a result was made: command, machine class and date, the end of a table's legend."""
    return f"`{result['command']}`, {machine_words(result['machine'])}, {result['date']}."


def run_table(result: dict[str, Any]) -> str:
    """Students by label sources, with the controls, as Markdown."""
    summary = result["summary"]
    students = list(summary["students"])
    lines = [
        "| trained on | labels | " + " | ".join(f"`{name}`" for name in students) + " | bytes |",
        "|---|---|" + "---:|" * (len(students) + 1),
    ]
    counted = summary["bytes"]
    groups = (
        ("**synthetic set**", summary["students"], True),
        ("random real images, same IPC", summary["controls"]["random"], False),
        (
            f"all {summary['protocol']['whole']['images']:,} training images",
            summary["controls"]["whole"],
            False,
        ),
    )
    for title, group, has_bytes in groups:
        for source, label in SOURCES.items():
            cells = [group.get(student, {}).get(source) for student in students]
            if any(cell is not None for cell in cells):
                size = f"{source_bytes(counted, source):,}" if has_bytes else "–"
                values = " | ".join(percent(cell) for cell in cells)
                lines.append(f"| {title} | {label} | {values} | {size} |")
    seconds = sum(stage["seconds"] for stage in summary["stages"].values())
    peak = max(stage["peak_memory_bytes"] for stage in summary["stages"].values())
    seeds = len(next(iter(next(iter(summary["students"].values())).values()))["runs"])
    lines += [
        "",
        f"Test accuracy in percent, mean ± standard deviation over {seeds} fresh students, after "
        f"their last epoch; bytes are images plus what that label source needs. "
        f"`{result['command']}`, seed {result['seed']}, {seconds / 60:.1f} minutes and "
        f"{peak / 2**30:.1f} GiB on {machine_words(result['machine'])}, {result['date']}.",
    ]
    return "\n".join(lines) + "\n"


def gradient_table(result: dict[str, Any]) -> str:
    """Time against unrolled, peak memory and error of the matching gradients, as Markdown."""
    times, peaks, errors = result["seconds"], result["peak_bytes"], result["errors"]
    timed = [n for n in times if "unrolled" in times[n] and n != "1"]
    heads = [f"time, N = {n}" for n in timed] + [f"MiB, N = {n}" for n in peaks]
    heads += [f"error, N = {n}" for n in errors]
    lines = [f"| gradient | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name in times[timed[0]]:
        cells = [f"{times[n][name] / times[n]['unrolled']:.2f}x" for n in timed]
        cells += [f"{peaks[n][name] / 2**20:,.0f}" if name in peaks[n] else "–" for n in peaks]
        cells += [
            f"{max(errors[n][name].values()):.0e}" if name in errors[n] else "–" for n in errors
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    made = result["made"]["seconds"]
    problem, machine = made["problem"], made["machine"]
    memory = "what the allocator reserves" if "gpu" in machine else "the growth of the process"
    lines += [
        "",
        f"ConvNet of width {problem['width']}, batch {problem['batch']}, 3x32x32 images; time as a "
        f"multiple of plain unrolled differentiation at the same N, memory as {memory}, "
        "the largest relative error among images, labels and learning rate against "
        f"unrolled float64. `{made['command']}`, {made['threads']} thread(s), "
        f"{machine_words(machine)}, {made['date']}.",
    ]
    return "\n".join(lines) + "\n"


def ablation_table(result: dict[str, Any]) -> str:
    """One row per variant: students by label source, and random real images beside them."""
    variants = result["variants"]
    students = list(dict.fromkeys(s for v in variants.values() for s in v["summary"]["students"]))
    heads = [f"`{student}`" for student in students]
    lines = [
        f"| {result['title']} | labels | {' | '.join(heads)} | random real images | seconds |",
        "|---|---|" + "---:|" * (len(heads) + 2),
    ]
    for name, variant in variants.items():
        summary = variant["summary"]
        random = summary["controls"]["random"]
        made = sum(summary["stages"].get(stage, {}).get("seconds", 0) for stage in SET_STAGES)
        sources = dict.fromkeys(k for by in summary["students"].values() for k in by)
        for source in sources:
            cells = [percent(summary["students"].get(s, {}).get(source)) for s in students]
            control = [random.get(s, {}).get(source) or random[s]["hard"] for s in students]
            beside = ", ".join(percent(cell) for cell in control)
            row = [name, SOURCES.get(source, source), *cells, beside, f"{made:,.0f}"]
            lines.append(f"| {' | '.join(row)} |")
    machine = result["machine"]
    seeds = len(next(iter(next(iter(summary["students"].values())).values()))["runs"])
    lines += [
        "",
        f"Test accuracy in percent, mean ± standard deviation over {seeds} fresh students, after "
        "their last epoch; random real images at the same IPC with the same labels, or hard ones "
        f"where no teacher can label them; seconds to make the images. `{result['command']}`, "
        f"seed {result['seed']}, {machine['cores']} cores of {machine['cpu']}, {result['date']}.",
    ]
    return "\n".join(lines) + "\n"


def curve_table(result: dict[str, Any]) -> str:
    """A sweep: one row per codec, from most bytes to least, then the controls, as Markdown."""
    points = result["sweep"]["points"]
    students = list(dict.fromkeys(point["student"] for point in points))
    heads = " | ".join(f"`{student}`" for student in students)
    lines = [
        f"| labels | bytes | smaller by | shipped | to fetch | {heads} | `random` |",
        "|---|---:|---:|---:|---:|" + "---:|" * (len(students) + 1),
    ]
    by_codec: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        by_codec.setdefault(point["codec"], []).append(point)
    for codec, rows in sorted(by_codec.items(), key=lambda item: -item[1][0]["bytes"]):
        first = rows[0]
        cells = [_accuracy(rows, "set", student) for student in students]
        control = ", ".join(_accuracy(rows, "random", student) for student in students)
        ratio = f"{first['ratio']:,.1f}x"
        sizes = [f"{first['bytes']:,}", ratio, f"{first['shipped']:,}", f"{first['external']:,}"]
        lines.append(f"| `{codec}` | {' | '.join(sizes)} | {' | '.join(cells)} | {control} |")
    seeds = len(points[0]["runs"])
    lines += [
        "",
        "Bytes of labels and of what names their views; shipped, the same in a compressed archive; "
        "to fetch, what a receiver must get elsewhere. Test accuracy in percent, mean ± standard "
        f"deviation over {seeds} fresh students, after their last epoch, **bold** where no codec "
        "takes fewer bytes and is as accurate; `random`: random real images under the same labels. "
        + made_by(result),
    ]
    return "\n".join(lines) + "\n"


def _accuracy(rows: list[dict[str, Any]], images: str, student: str) -> str:
    """A cell of `curve_table`."""
    for row in rows:
        if (row["images"], row["student"]) == (images, student):
            text = percent(row)
            return text if row["dominated"] or images == "random" else f"**{text}**"
    return "–"


def projector_table(result: dict[str, Any]) -> str:
    """The projector ablation: one row per way of labelling, as Markdown."""
    students, found = result["students"], result["projectors"]
    columns = [(ipc, spec) for ipc, by in students.items() for spec in by]
    heads = " | ".join(f"`{spec}`, IPC {ipc}" for ipc, spec in columns)
    lines = [
        f"| labels | {heads} | label bytes | its own accuracy | agreement |",
        "|---|" + "---:|" * (len(columns) + 3),
    ]
    for row in next(iter(students[columns[0][0]].values())):
        cells = [percent(students[ipc][spec][row]) for ipc, spec in columns]
        size, own, agreement = "–", "–", "–"
        if row in found:
            size = f"{found[row]['bytes']:,}"
            own = f"{100 * found[row]['test accuracy']:.1f}"
            agreement = f"{100 * found[row]['validation']['agreement']:.1f}"
        elif row == "stored":
            size = " / ".join(f"{count:,}" for count in result["stored label bytes"].values())
        lines.append(f"| {row} | {' | '.join(cells)} | {size} | {own} | {agreement} |")
    options = result["options"]
    external = max(projector["external bytes"] for projector in found.values())
    lines += [
        "",
        f"Each row adds to the one above it; tower `{options['tower']}` ({external:,} bytes, "
        "counted apart). Test accuracy in percent, mean ± standard deviation over "
        f"{options['seeds']} fresh students after {options['epochs']} epochs, on the same views "
        f"of the same images; agreement with the committee on validation images. "
        + made_by(result),
    ]
    return "\n".join(lines) + "\n"


def pipeline_table(result: dict[str, Any]) -> str:
    """What each stage of a recipe costs, as Markdown."""
    lines = ["| stage | seconds | MiB | operations | of the peak |", "|---|---:|---:|---:|---:|"]
    for name, stage in result["stages"].items():
        lines.append(
            f"| {name} | {stage['seconds']:.1f} | {stage['peak_memory_bytes'] / 2**20:,.0f} "
            f"| {stage['operations']:.1e} | {100 * stage['share_of_peak']:.0f} % |"
        )
    lines += [
        "",
        "Operations are the multiplications and additions of convolutions and matrix products; the "
        f"peak is that of one large float32 matrix product, "
        f"{result['product_operations_per_second'] / 1e9:.0f} billion a second on "
        f"{result['threads']} thread(s). " + made_by(result),
    ]
    return "\n".join(lines) + "\n"


def workers_table(result: dict[str, Any]) -> str:
    """Students one after another and side by side, as Markdown."""
    lines = ["| workers | seconds |", "|---:|---:|"]
    lines += [f"| {count} | {min(found):.1f} |" for count, found in result["seconds"].items()]
    times = len(result["seconds"]["1"])
    measured = "each measured once" if times == 1 else f"the shortest of {times} times"
    lines += [
        "",
        f"{result['students']} students, the same numbers; {measured}, start included. "
        + made_by(result),
    ]
    return "\n".join(lines) + "\n"


def source_bytes(counted: dict[str, Any], source: str) -> int:
    """Images plus what a label source needs; external bytes are listed apart."""
    labels = counted["projector"] if source == "projector" else counted["sources"][source]
    return counted["images"] + counted.get("preprocess", 0) + labels


def updated(text: str) -> str:
    """The README with every table made anew."""

    def make(match: re.Match[str]) -> str:
        result = json.loads((RESULTS / f"{match['name']}.json").read_text())
        kinds = {
            "peak_bytes": gradient_table,
            "variants": ablation_table,
            "sweep": curve_table,
            "projectors": projector_table,
            "stages": pipeline_table,
            "ratio": workers_table,
        }
        make_table = next((table for key, table in kinds.items() if key in result), run_table)
        return f"{match[1]}{make_table(result)}{match[3]}"

    return BLOCK.sub(make, text)


def main() -> None:
    """Rewrite or check the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = updated(before)
    if options.check:
        if before != after:
            sys.exit("README.md is not what benchmarks/tables.py makes; run it")
    else:
        README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
