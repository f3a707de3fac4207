"""The picture files in class folders; every other file there is counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.data.sources.gathering import Part
from distill.data.sources.picture import is_picture, picture_file, reads_heif
from distill.data.splits import DataError

# By the format that each belongs to.
_READ = {
    "AVIF": ".avif",
    "BMP": ".bmp .dib",
    "GIF": ".gif",
    "JPEG": ".jfif .jpe .jpeg .jpg",
    "JPEG 2000": ".j2k .jp2",
    "PNG": ".apng .png",
    "PPM": ".pbm .pgm .pnm .ppm",
    "TIFF": ".tif .tiff",
    "WebP": ".webp",
}

# Read where pillow-heif is installed.
_HEIF = frozenset((".heic", ".heif"))

# Pictures that Pillow does not read by itself, or that this package does not ask it to.
_UNREAD = {
    "Adobe": ".psd",
    "JPEG XL": ".jxl",
    "SVG": ".svg",
    "Targa": ".tga",
    "raw": ".arw .cr2 .cr3 .dng .nef .orf .raf .raw .rw2",
}

# Suffixes in a note.
_SHOWN = 8

_ALWAYS = frozenset(suffix for suffixes in _READ.values() for suffix in suffixes.split())

_OTHER_PICTURES = frozenset(suffix for suffixes in _UNREAD.values() for suffix in suffixes.split())


def read_suffixes() -> frozenset[str]:
    """Suffixes of the pictures that can be read here, in lower case and with their dot."""
    return _ALWAYS | _HEIF if reads_heif() else _ALWAYS


@dataclass(frozen=True, eq=False)
class Listing:
    """The pictures of a part in the order of class and file names, and what was passed over.

    Attributes:
        part: pictures and classes.
        passed: suffix -> how many files were passed over; "" for files without one.
        hidden_pictures: how many of those begin like a picture that could be read.
    """

    part: Part
    passed: Counter[str]
    hidden_pictures: int = 0


def list_classes(folders: Iterable[Path], names: Sequence[str]) -> Listing:
    """List the pictures in and below class folders.

    A file is a picture by its suffix, or, where it has none, by its content. A broken link is
    kept: it fails with its name when it is read, rather than vanish.

    Args:
        folders: of classes.
        names: of the classes in their order; every folder must be one of them.

    Raises:
        DataError: for a folder that is no class, or cannot be listed.
    """
    paths: list[Path] = []
    labels: list[int] = []
    passed: Counter[str] = Counter()
    hidden = 0
    suffixes, told = read_suffixes(), _OTHER_PICTURES | _HEIF
    for folder in folders:
        if folder.name not in names:
            raise DataError(
                f"{str(folder.parent)!r} holds class {folder.name!r}, which has no training "
                "folder; add training images or remove it"
            )
        label = names.index(folder.name)
        for path in files_below(folder):
            suffix = path.suffix.lower()
            if suffix in suffixes or (not suffix and is_picture(path)):
                paths.append(path)
                labels.append(label)
            else:
                passed[suffix] += 1
                hidden += suffix not in told and is_picture(path)
    return Listing(Part([picture_file(path) for path in paths], labels), passed, hidden)


def list_annotated(folder: Path, names: Sequence[str]) -> Listing:
    """List the pictures of a part whose classes stand in `val_annotations.txt`, as Tiny ImageNet's.

    A line is a file's name and its class, separated by tabs; the files lie in `images`.

    Raises:
        DataError: for a class without training folder, or a file that cannot be read.
    """
    table = folder / ANNOTATIONS
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{str(table)!r} cannot be read ({error}); replace or remove it") from None
    rows = sorted(tuple(line.split("\t")[:2]) for line in lines if line.strip())
    numbers = {name: number for number, name in enumerate(names)}
    for row in rows:
        if len(row) < 2 or row[1] not in numbers:
            raise DataError(
                f"{str(table)!r} has the line {' '.join(row)!r}, a file and a class that has a "
                "training folder are needed, separated by a tab; correct it"
            )
    pictures = [picture_file(folder / "images" / row[0]) for row in rows]
    unlisted = len(list(files_below(folder / "images"))) - len(rows)
    passed = Counter({"without a class": unlisted} if unlisted > 0 else {})
    return Listing(Part(pictures, [numbers[row[1]] for row in rows]), passed)


ANNOTATIONS = "val_annotations.txt"


def files_below(folder: Path) -> Iterator[Path]:
    """Visible files in a folder and below it, in the order of their paths; links are followed."""
    seen: set[str] = set()
    found: list[Path] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place) / name for name in files if not name.startswith(".")]
    return iter(sorted(found, key=lambda path: path.parts))


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden files and macOS's in an archive.

    Raises:
        DataError: when it cannot be listed.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(
            f"{str(folder)!r} cannot be listed ({error.strerror}), a readable folder is needed; "
            "correct its permissions"
        ) from error
    return [folder / name for name in names if not name.startswith((".", "__MACOSX"))]


def folders_in(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted by name."""
    return [path for path in visible(folder) if path.is_dir()]


def shown(name: str) -> str:
    """A name from a stranger's files, without what a terminal would obey."""
    return name if name.isprintable() else repr(name)


def heif_remedy(passed: Counter[str]) -> str:
    """What to do for HEIC pictures that were passed over, "" where there are none."""
    count = sum(passed[suffix] for suffix in _HEIF)
    return f"HEIC pictures among them: {count}; pip install 'limbeck[heic]'" if count else ""


def passed_note(listings: Iterable[Listing], beside: int) -> str:
    """A sentence on the files that were passed over, "" for none.

    Args:
        listings: of all parts.
        beside: how many pictures lie beside the class folders.
    """
    passed: Counter[str] = Counter()
    hidden = 0
    for listing in listings:
        passed.update(listing.passed)
        hidden += listing.hidden_pictures
    common = sorted(suffix for suffix, _ in passed.most_common(_SHOWN))
    parts = [f"{passed[suffix]} {shown(suffix) or 'without suffix'}" for suffix in common]
    if len(passed) > _SHOWN:
        parts.append(f"{passed.total() - sum(passed[suffix] for suffix in common)} others")
    if beside:
        parts.append(f"{beside} pictures beside the class folders")
    if not parts:
        return ""
    unread = sum(count for suffix, count in passed.items() if suffix in _OTHER_PICTURES)
    remedies = [
        heif_remedy(passed),
        f"{unread} of them are pictures of kinds that are not read: convert them" if unread else "",
        f"{hidden} of them hold pictures: give them the suffix of their kind" if hidden else "",
        "sort those into class folders" if beside else "",
    ]
    text = "; ".join(remedy for remedy in remedies if remedy)
    return f"files passed over: {', '.join(parts)}{'; ' if text else ''}{text}"
