"""Pages of pictures side by side, and the files that pages are written to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill.errors import WorkError
from distill.report.images import Picture, png_data_uri, shown_size
from distill.report.render import render_page
from distill.report.tables import Item
from distill.store.files import write_text

_HTML = b"<!doctype html"


@dataclass(frozen=True)
class PictureRow:
    """A row of a section.

    Attributes:
        pictures: [h, w, c] in [0, 1] each, with a text for those who cannot see it.
        cells: texts beside them.
    """

    pictures: Sequence[tuple[NDArray[Any], str]]
    cells: Sequence[str]


@dataclass(frozen=True)
class PictureSection:
    """A table of pictures.

    Attributes:
        id: of the section in the page, letters and dashes.
        heading: its title.
        hint: a sentence on what it shows.
        columns: titles of the pictures' column and of the cells'.
        rows: of the table; a section without any is left out.
    """

    id: str
    heading: str
    hint: str
    columns: Sequence[str]
    rows: Sequence[PictureRow]


def render_pictures(
    kind: str,
    title: str,
    sentences: Sequence[str],
    facts: Sequence[tuple[str, str]],
    sections: Sequence[PictureSection],
) -> str:
    """One HTML page that needs nothing else: sentences, facts and tables of pictures.

    Args:
        kind: of page, a few words.
        title: its heading.
        sentences: what was found.
        facts: names and values.
        sections: see `PictureSection`.
    """
    shown = [
        (section, [(list(map(_shown, row.pictures)), row.cells) for row in section.rows])
        for section in sections
        if section.rows
    ]
    return render_page(
        "pictures.html",
        [],
        kind=kind,
        title=title,
        sentences=sentences,
        facts=[Item(key, value) for key, value in facts],
        sections=shown,
    )


def _shown(given: tuple[NDArray[Any], str]) -> Picture:
    image, alt = given
    return Picture(0, png_data_uri(image), *shown_size(*image.shape[:2]), alt)


def refuse_other_file(out: Path, option: str = "--out") -> None:
    """Refuse to write a page over what is none.

    Raises:
        WorkError: if there is a file that is no HTML page.
    """
    if not out.exists():
        return
    if not out.is_file() or not out.read_bytes().lower().startswith(_HTML):
        raise WorkError(
            f"{option} {out} exists and is no HTML page; name another file, or remove it"
        )


def write_page(out: Path, page: str) -> None:
    """Write a page as a whole, or not at all; raises as `refuse_other_file` for --html."""
    refuse_other_file(out, "--html")
    write_text(out, page)
