"""The soft labels of single images: the classes with most probability, as rows of bars."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from distill.report.images import ClassRow, Picture
from distill.report.inputs import ReportInput, class_name
from distill.report.scales import finite
from distill.report.verdict import SOURCE_NAMES, source_name

_SHOWN_CLASSES = 8


@dataclass(frozen=True)
class BarRow:
    """A class and its percentage from each label source; None where it is not finite."""

    name: str
    hard: bool
    percents: list[float | None]


@dataclass(frozen=True)
class LabelledImage:
    """One synthetic image with its bars; every image of a report has the same number of rows."""

    title: str
    picture: Picture
    rows: list[BarRow]


@dataclass(frozen=True)
class SoftLabelBars:
    """The images with soft labels, by class, and the label sources' names."""

    sources: list[str]
    groups: list[tuple[str, list[LabelledImage]]]

    def data(self) -> Markup:
        """JSON for the page's script; nothing in it can close the element that holds it."""
        items = [
            {
                "index": image.picture.index,
                "title": image.title,
                "rows": [[row.name, row.hard, row.percents] for row in image.rows],
            }
            for _, images in self.groups
            for image in images
        ]
        text = json.dumps(items, allow_nan=False, separators=(",", ":"))
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return Markup(text)  # noqa: S704 - the three characters that markup needs are gone


def soft_label_bars(report: ReportInput, classes: Sequence[ClassRow]) -> SoftLabelBars | None:
    """Bars for every synthetic image that the grid shows; None without soft labels or images."""
    order = [source for source in SOURCE_NAMES if source in report.soft_labels]
    order += [source for source in report.soft_labels if source not in SOURCE_NAMES]
    if not order:
        return None
    groups = [
        (row.name, [_labelled(report, order, row, index) for index in range(len(row.synthetic))])
        for row in classes
        if row.synthetic
    ]
    return SoftLabelBars([source_name(source) for source in order], groups) if groups else None


def _labelled(
    report: ReportInput, order: Sequence[str], row: ClassRow, index: int
) -> LabelledImage:
    picture = row.synthetic[index]
    rows = _rows(report, order, picture.index, row.label)
    return LabelledImage(f"{row.name}, image {index + 1}", picture, rows)


def _rows(report: ReportInput, order: Sequence[str], index: int, label: int) -> list[BarRow]:
    width = max(report.soft_labels[source].shape[1] for source in order)
    table = np.full((len(order), width), np.nan)
    for row_index, source in enumerate(order):
        values = np.asarray(report.soft_labels[source][index], dtype=np.float64)
        table[row_index, : len(values)] = values
    known = np.nan_to_num(table, nan=0.0, posinf=0.0, neginf=0.0)
    # A stable order keeps equal probabilities in the order of the classes.
    ranked = np.argsort(-known.mean(axis=0), kind="stable")
    rows = [
        BarRow(class_name(report.class_names, int(k)), int(k) == label, _percents(table[:, k]))
        for k in ranked[:_SHOWN_CLASSES]
    ]
    rest = ranked[_SHOWN_CLASSES:]
    if len(rest):
        name = "1 other class" if len(rest) == 1 else f"{len(rest)} other classes"
        rows.append(BarRow(name, False, _percents(known[:, rest].sum(axis=1))))
    return rows


def _percents(values: NDArray[np.float64]) -> list[float | None]:
    numbers = (finite(value) for value in values)
    return [None if number is None else round(100 * number, 2) for number in numbers]
