"""The page of an inspection: copies and likely label errors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from distill.data.health import Health, Pair
from distill.evaluation.checks.inspection import Inspection
from distill.report.pages import PictureRow, PictureSection, render_pictures

# Rows of a section.
MOST_ROWS = 50


def inspection_page(inspection: Inspection) -> str:
    """One HTML page with the findings, and pictures of what they are about."""
    health, copies = inspection.health, inspection.health.copies
    counts = {part: sum(own) for part, own in health.counts.items()}
    _, channels, height, width = health.parts[0].images.shape
    facts = [
        ("Classes", str(len(health.class_names))),
        *((f"Images, {part}", f"{count:,}") for part, count in counts.items()),
        ("Looked at as", f"{height}x{width} pixels, {channels} channels"),
        ("Stored as", ", ".join(f"{count:,} {mode}" for mode, count in health.modes.items())),
        ("Damaged", str(len(health.damaged))),
    ]
    sections = [
        _pairs(
            health,
            "leaks",
            "Copies across parts",
            "Held-out images that are also trained on.",
            copies.leaks,
        ),
        _pairs(
            health,
            "conflicts",
            "Copies with two labels",
            "One of the two labels is likely wrong.",
            copies.conflicts,
        ),
        _suspects(inspection),
        _pairs(
            health,
            "within",
            "Copies within a class",
            "Images that repeat another of their class and part.",
            copies.within,
        ),
    ]
    sentences = [*inspection.findings(), *(f"Set {line}." for line in health.suggestions())]
    title = f"{health.source}: {sum(counts.values()):,} images"
    return render_pictures("Health of data", title, sentences, facts, sections)


def _pairs(
    health: Health, section: str, heading: str, hint: str, pairs: Sequence[Pair]
) -> PictureSection:
    rows = []
    for pair in pairs[:MOST_ROWS]:
        first, second = _label(health, *pair.first), _label(health, *pair.second)
        pictures = [_picture(health, *pair.first), _picture(health, *pair.second)]
        alike = "equal" if pair.exact else f"{pair.similarity:.4f}"
        cells = [
            f"{health.name(*pair.first)} ({first}, {pair.first.part})",
            f"{health.name(*pair.second)} ({second}, {pair.second.part})",
            alike,
        ]
        rows.append(PictureRow(pictures, cells))
    more = f" The first {MOST_ROWS} of {len(pairs):,} pairs." if len(pairs) > MOST_ROWS else ""
    columns = ("Pictures", "First", "Second", "Correlation")
    return PictureSection(section, heading, hint + more, columns, rows)


def _suspects(inspection: Inspection) -> PictureSection:
    health, suspects = inspection.health, inspection.suspects
    found = () if suspects is None else suspects.found
    rows = [
        PictureRow(
            [_picture(health, one.part, one.number)],
            [
                f"{health.name(one.part, one.number)} ({one.part})",
                f"{health.class_names[one.label]} ({100 * one.own:.1f} %)",
                f"{health.class_names[one.suggested]} ({100 * one.other:.1f} %)",
            ],
        )
        for one in found[:MOST_ROWS]
    ]
    who = "" if suspects is None else f" Asked were {suspects.networks}."
    more = f" The first {MOST_ROWS} of {len(found):,}." if len(found) > MOST_ROWS else ""
    hint = f"Networks are confident of another class.{who}{more}"
    columns = ("Picture", "Image", "Label, probability", "Suggested, probability")
    return PictureSection("label-errors", "Likely label errors", hint, columns, rows)


def _label(health: Health, part: str, number: int) -> str:
    labels = next(own.labels for own in health.parts if own.name == part)
    return health.class_names[int(labels[number])]


def _picture(health: Health, part: str, number: int) -> tuple[NDArray[Any], str]:
    images = next(own.images for own in health.parts if own.name == part)
    pixels = images[torch.tensor([number])][0].permute(1, 2, 0).numpy()
    return pixels, f"{_label(health, part, number)}, {part}"
