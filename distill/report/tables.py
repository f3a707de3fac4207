"""Rows of the report's tables: accuracies with controls and bytes, stages, nested plain values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.report.dots import DotRow
from distill.report.scales import MISSING, count_text, finite, percent
from distill.report.verdict import SOURCE_NAMES, Score, read_score, runs_of, source_name

_SHORT_LIST = 12

CONTROL_NAMES = {
    "random": "random images",
    "whole": "whole data set",
    "coded": "coded real images at the bytes of",
    "herded": "coded herded images at the bytes of",
    "network": "quantised, at the bytes of",
}

# It is no student, and has no place beside them.
_NETWORK = "network"


@dataclass(frozen=True)
class Cell:
    """One accuracy: percents as text; `seeds` only where they differ within the row."""

    mean: str
    spread: str
    seeds: str
    best: bool


@dataclass(frozen=True)
class SourceRow:
    """One label source, or a control, over the students; bytes as text."""

    label: str
    control: bool
    cells: list[Cell]
    seeds: str
    receiver: str
    external: str


@dataclass(frozen=True)
class AccuracyTable:
    """The table of students by label sources; `note` says how to read its bytes."""

    students: list[str]
    rows: list[SourceRow]
    note: str


@dataclass(frozen=True)
class Item:
    """One key and its value as text; numbers are aligned to the right."""

    key: str
    value: str
    number: bool = False


@dataclass(frozen=True)
class StageRow:
    """What one stage cost: texts in seconds and MB, with the first digits of its key."""

    name: str
    seconds: str
    peak: str
    key: str
    total: bool = False


def accuracy_table(summary: Mapping[str, Any]) -> AccuracyTable | None:
    """Students by label sources with their controls, or None if nothing was evaluated."""
    blocks = [("", summary.get("students") or {}), *_controls(summary)]
    students = list(dict.fromkeys(name for _, block in blocks for name in block))
    if not students:
        return None
    bytes_ = summary.get("bytes") or {}
    best = _best_means(blocks[0][1])
    rows = [
        _source_row(control, source, block, students, bytes_, {} if control else best)
        for control, block in blocks
        for source in _sources(block.values())
    ]
    stored = bytes_.get("labels")
    whole = finite(stored) is not None and not isinstance(stored, Mapping)
    note = "One byte count was recorded for all stored labels." if whole else ""
    return AccuracyTable(students, rows, note)


def _controls(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    controls = summary.get("controls") or {}
    return [(str(name), block or {}) for name, block in controls.items() if name != _NETWORK]


def network_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the quantised networks in as many bytes reach themselves, one for each label source."""
    controls = (summary.get("controls") or {}).get(_NETWORK) or {}
    sentences = []
    for network, sources in controls.items():
        for source, entry in sources.items():
            score = read_score(network, source, entry)
            if score is not None:
                sentences.append(
                    f"In the bytes of {source_name(source)}, {network} with "
                    f"{entry.get('bits', MISSING)} bits a weight ({count_text(entry.get('bytes'))} "
                    f"bytes), trained on the whole data set, reaches {score.text()} itself; it "
                    "trains no other network."
                )
    return sentences


def _sources(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(source for entry in entries for source in entry))
    known = [source for source in SOURCE_NAMES if source in names]
    return known + [source for source in names if source not in SOURCE_NAMES]


def _best_means(students: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    means = {
        student: [
            score.mean
            for source, entry in sources.items()
            if (score := read_score(student, source, entry))
        ]
        for student, sources in students.items()
    }
    return {student: max(values) for student, values in means.items() if values}


def _source_row(
    control: str,
    source: str,
    block: Mapping[str, Any],
    students: Sequence[str],
    bytes_: Mapping[str, Any],
    best: Mapping[str, float],
) -> SourceRow:
    entries = [(block.get(student) or {}).get(source) for student in students]
    counts = [len(entry.get("runs") or ()) or 1 for entry in entries if entry]
    same = len(set(counts)) <= 1
    cells = [
        _cell(entry, None if entry is None else read_score(student, source, entry), best, same)
        for student, entry in zip(students, entries, strict=True)
    ]
    seeds = str(counts[0]) if same else f"{min(counts)}{MISSING}{max(counts)}"
    label = control_label(control, source) if control else source_name(source)
    receiver, external = (MISSING, MISSING) if control else receiver_bytes(bytes_, source)
    taken = [number for entry in entries if entry and (number := finite(entry.get("bytes")))]
    if taken:
        receiver = count_text(max(taken))
    return SourceRow(label[0].upper() + label[1:], bool(control), cells, seeds, receiver, external)


def control_label(control: str, source: str) -> str:
    """What a reader calls a control, with the label source that it stands beside."""
    real = CONTROL_NAMES.get(control, control)
    joined = " " if real.endswith(" of") else ", "
    return f"{real}{joined}{source_name(source)}"


def _cell(
    entry: Mapping[str, Any] | None, score: Score | None, best: Mapping[str, float], same: bool
) -> Cell:
    if entry is None:
        return Cell(MISSING, "", "", False)
    if score is None:
        return Cell("not finite", "", "", False)
    seeds = "" if same else f"{score.seeds} seed" + ("" if score.seeds == 1 else "s")
    spread = percent(score.std) if score.seeds > 1 else ""
    balanced = finite(entry.get("balanced"))
    if balanced is not None:
        seeds = f"{seeds}, balanced {percent(balanced)}".removeprefix(", ")
    return Cell(percent(score.mean), spread, seeds, score.mean == best.get(score.student))


def receiver_bytes(bytes_: Mapping[str, Any], source: str) -> tuple[str, str]:
    """What a receiver needs for a label source, and downloads from elsewhere, in bytes.

    The total of that source where it was counted, else images plus its labels; for `projector`,
    images plus the projector, and the tower that it adapts as external. A dash where a part is
    unknown.
    """
    total = finite((bytes_.get("totals") or {}).get(source))
    labels = bytes_.get("labels")
    if source == "projector":
        part, external = bytes_.get("projector"), bytes_.get("external")
    else:
        part, external = labels.get(source) if isinstance(labels, Mapping) else labels, 0
    if total is not None:
        return count_text(total), count_text(external)
    numbers = (finite(bytes_.get("images")), finite(part))
    if None in numbers:
        return MISSING, count_text(external)
    return count_text(sum(number for number in numbers if number is not None)), count_text(external)


def dot_rows(summary: Mapping[str, Any]) -> dict[str, list[DotRow]]:
    """For each student, the seeds of every label source and then of every control."""
    by_student: dict[str, list[DotRow]] = {}
    for control, block in [("", summary.get("students") or {}), *_controls(summary)]:
        for student, sources in block.items():
            for source in _sources([sources]):
                score = read_score(student, source, sources[source])
                label = f"{control}, {source}" if control else source
                mean = score.mean if score else float("nan")
                row = DotRow(label, runs_of(sources[source]), mean, bool(control))
                by_student.setdefault(student, []).append(row)
    return by_student


def stage_rows(manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> list[StageRow]:
    """What each stage cost, in the manifest's order, with a row for the sum (time) and peak."""
    recorded, costs = manifest.get("stages") or {}, summary.get("stages") or {}
    merged = {
        name: {**(costs.get(name) or {}), **(recorded.get(name) or {})}
        for name in dict.fromkeys([*recorded, *costs])
    }
    rows = [
        StageRow(
            name,
            _seconds(stage.get("seconds")),
            _megabytes(stage.get("peak_memory_bytes")),
            str(stage.get("key", ""))[:8],
        )
        for name, stage in merged.items()
    ]
    if len(rows) < 2:
        return rows
    seconds = [finite(stage.get("seconds")) or 0.0 for stage in merged.values()]
    peaks = [finite(stage.get("peak_memory_bytes")) or 0.0 for stage in merged.values()]
    return [*rows, StageRow("all stages", _seconds(sum(seconds)), _megabytes(max(peaks)), "", True)]


def _seconds(value: object) -> str:
    number = finite(value)
    return MISSING if number is None else f"{number:,.1f}"


def _megabytes(value: object) -> str:
    number = finite(value)
    return MISSING if number is None else f"{number / 1e6:,.1f}"


def items(values: Mapping[str, Any], prefix: str = "") -> list[Item]:
    """Nested plain values as rows with dotted keys, in their own order."""
    rows: list[Item] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows.extend(items(value, f"{prefix}{key}."))
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            rows.append(Item(f"{prefix}{key}", plain_text(value), number))
    return rows


def plain_text(value: object) -> str:
    """A plain value as a reader writes it; long lists are cut and say so."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(plain_text(item) for item in value[:_SHORT_LIST])
        cut = len(value) > _SHORT_LIST
        return f"{shown}, \u2026 ({len(value)} in all)" if cut else shown or MISSING
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain_text(item)}" for key, item in value.items()) or MISSING
    return str(value)


def recipe_tables(recipe: Mapping[str, Any]) -> list[tuple[str, list[Item]]]:
    """(table, rows) of a recipe; keys outside any table come first."""
    loose = {key: value for key, value in recipe.items() if not isinstance(value, Mapping)}
    tables = [(f"[{key}]", items(value)) for key, value in recipe.items() if key not in loose]
    return ([("Top level", items(loose))] if loose else []) + [pair for pair in tables if pair[1]]


def digest_rows(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(stage, artefact, digest) of everything that the stages wrote, and the stages' keys."""
    rows: list[tuple[str, str, str]] = []
    for name, stage in (manifest.get("stages") or {}).items():
        if stage.get("key"):
            rows.append((name, "key", str(stage["key"])))
        rows += [(name, str(k), str(v)) for k, v in (stage.get("outputs") or {}).items()]
    return rows
