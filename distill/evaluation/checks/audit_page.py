"""The page of an audit: each image of a set beside the real images that it is nearest to."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from distill.evaluation.checks.audit import Audit
from distill.report.pages import PictureRow, PictureSection, render_pictures

# Images of the set that are shown, the most alike first.
MOST_ROWS = 200


def audit_page(audit: Audit, title: str) -> str:
    """One HTML page with the findings and the nearest training images.

    Args:
        audit: of the set.
        title: what the set is called.
    """
    own, names = audit.neighbours, audit.class_names
    order = own.alike.argsort(descending=True, stable=True)[:MOST_ROWS].tolist()
    rows = []
    for index in order:
        label = names[int(audit.classes[index])]
        near = [names[int(number)] for number in audit.shown_classes[index]]
        pictures = [(_pixels(audit.images[index]), f"image {index} of the set, {label}")]
        pictures += [
            (_pixels(image), f"neighbour {number}, {name}")
            for number, (image, name) in enumerate(zip(audit.shown[index], near, strict=True), 1)
        ]
        places = ", ".join(
            f"{place} ({name})"
            for place, name in zip(own.indices[index].tolist(), near, strict=True)
        )
        alike = "equal" if bool(own.exact[index]) else f"{float(own.alike[index]):.4f}"
        distance = f"{float(own.distances[index, 0]):.4f}"
        rows.append(PictureRow(pictures, [f"{index}, {label}", places, distance, alike]))
    more = (
        f" The {MOST_ROWS} of {len(audit.images):,} most alike." if len(rows) == MOST_ROWS else ""
    )
    section = PictureSection(
        "neighbours",
        "Nearest training images",
        f"An image of the set, and the training images that it is nearest to by its pixels.{more}",
        ("Set, neighbours", "Image", "Training images", "Distance", "Largest correlation"),
        rows,
    )
    facts = [
        ("Images", f"{len(audit.images):,}"),
        ("Exact copies", f"{int(own.exact.sum()):,}"),
        ("Near copies", f"{int(own.near.sum()):,}"),
    ]
    return render_pictures("Leak audit", title, audit.findings(), facts, [section])


def _pixels(image: Tensor) -> NDArray[Any]:
    """[h, w, c] of an image [c, h, w]."""
    pixels: NDArray[Any] = image.permute(1, 2, 0).cpu().numpy()
    return pixels
