"""The `hf` source: image data sets through Hugging Face's package `datasets` (extra `hf`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.gathering import (
    Part,
    build_splits,
    choose_parts,
    left_out_note,
    numbered_classes,
)
from distill.data.sources.listing import shown
from distill.data.sources.picture import Picture
from distill.data.splits import DataError, SourceError
from distill.errors import suggestion

if TYPE_CHECKING:
    from distill.data.sources.picture import Content

_PARTS = ("train", "test", "validation", "valid", "val")

# Columns of classes in tables that do not say which it is.
_USUAL = ("label", "labels", "class", "fine_label", "target")

# Rows in one message.
_NAMED = 10


@dataclass(frozen=True, eq=False)
class _Table:
    """A part of a set: its rows, its column of pictures, and its column of classes as it is."""

    name: str
    rows: Any
    image: str
    classes: Sequence[Any]

    @property
    def missing(self) -> list[int]:
        """Rows without a class: none at all, or the hub's -1."""
        return [row for row, value in enumerate(self.classes) if value is None or value == -1]


def read_hugging_face(request: Request) -> SourceSplits:
    """Read `hf:NAME`, `hf:NAME@CONFIG`, or `hf:PATH` of a local folder of such a set.

    The columns of images and of classes are found by their types; classes are numbers with names,
    numbers from 0, or texts, which are numbered in their order. The test part is the split "test";
    where it has no classes, or is not there, it is "validation" (or valid, val), and where there is
    neither, a stratified fifth is held out. Nothing is fetched here, see `fetch_hugging_face`.

    Raises:
        SourceError: when there is no name.
        DataError: when `datasets` is not installed, the set cannot be had, has no images with
            classes, or rows without one.
    """
    if not request.argument:
        raise SourceError(f"source {request.source!r} lacks a name; write it as hf:NAME")
    splits = _load(request)
    if "train" not in splits:
        raise DataError(
            f"{request.source!r} has the splits {', '.join(splits)}, but train is needed; name "
            "another set"
        )
    image, label, names = _columns(request, splits["train"])
    tables = {
        name: _Table(name, _undecoded(splits[name], image), image, list(splits[name][label]))
        for name in _PARTS
        if name in splits
    }
    names = names or _names_of(tables["train"], label)
    unlabelled = [
        name
        for name, table in tables.items()
        if name != "train" and len(table.missing) == len(table.classes)
    ]
    roles, notes = choose_parts((name for name in tables if name not in unlabelled), unlabelled)
    used = {name: tables[name] for name in roles if name is not None}
    others = [shown(name) for name in splits if name not in tables]
    notes += [f"splits passed over: {', '.join(others)}"] if others else []
    notes += _check_missing(used, request)
    parts = {name: _part(table, names, label, request) for name, table in used.items()}
    found = build_splits(parts, roles, names, request)
    return replace(found, notes=(*notes, *found.notes))


def fetch_hugging_face(source: str) -> None:
    """Fetch the files of a `hf:...` source into the hub's cache; other sources have none.

    Raises:
        DataError: when they cannot be fetched.
    """
    kind, _, argument = source.partition(":")
    if kind == "hf" and argument:
        _load(Request(source, argument), fetch=True)


def _load(request: Request, *, fetch: bool = False) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{request.source!r} needs the package datasets, which is not installed; install "
            "limbeck[hf]"
        ) from None
    from projectors.model.offline import offline

    name, _, config = request.argument.partition("@")
    local = Path(name).expanduser()
    try:
        with ExitStack() as around:
            if not fetch:
                around.enter_context(offline())
                around.enter_context(_silenced(datasets))
            return datasets.load_dataset(str(local) if local.exists() else name, config or None)
    except Exception as error:  # noqa: BLE001 - hub, network, cache and parsers each have their own
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"{request.source!r} cannot be had ({type(error).__name__}: {reason}); check the name, "
            "or add --download where there is a network, which fetches it once"
        ) from None


@contextmanager
def _silenced(datasets: Any) -> Iterator[None]:
    """What `datasets` shows of its work, and logs beside an error, is left out."""
    logger, shown = logging.getLogger("datasets"), not datasets.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            datasets.enable_progress_bars()


def _columns(request: Request, split: Any) -> tuple[str, str, tuple[str, ...] | None]:
    """Names of the columns of images and classes, and the classes' names."""
    kinds = {name: type(feature).__name__ for name, feature in split.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    if not labels:
        # A table that was not described: a column with a usual name.
        labels = [name for name in _USUAL if name in kinds]
    if not images or not labels:
        raise DataError(
            f"{request.source!r} has the columns {', '.join(kinds)}, but one of images and one of "
            "classes are needed; name another set"
        )
    names = getattr(split.features[labels[0]], "names", None)
    return images[0], labels[0], tuple(names) if names else None


def _undecoded(split: Any, image: str) -> Any:
    """The rows with pictures as bytes, so that this package's reader decodes them."""
    if not hasattr(split, "cast_column"):
        return split
    import datasets

    return split.cast_column(image, datasets.Image(decode=False))


def _names_of(table: _Table, label: str) -> tuple[str, ...]:
    """Names of the classes that a column of numbers or texts holds."""
    values = [value for value in table.classes if value is not None and value != -1]
    if all(isinstance(value, str) for value in values):
        return tuple(sorted(set(values)))
    if all(isinstance(value, int) for value in values):
        return numbered_classes(torch.tensor(values), f"the column {label}")
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise DataError(
        f"the column {label} holds {kinds}, whole numbers or texts are needed; convert it"
    )


def _check_missing(tables: Mapping[str, _Table], request: Request) -> list[str]:
    """Refuse rows without a class, or note that they are left out."""
    named = []
    for table in tables.values():
        missing = table.missing
        if missing:
            rows = ", ".join(map(str, missing[:_NAMED])) + (", ..." if missing[_NAMED:] else "")
            named.append(f"{len(missing)} of {table.name} without a class (rows {rows})")
    if not named:
        return []
    if request.skip_damaged:
        return [left_out_note(named)]
    raise DataError(
        f"{request.source!r}: {'; '.join(named)}; correct them, or leave them out with skip_damaged"
    )


def _part(table: _Table, names: tuple[str, ...], label: str, request: Request) -> Part:
    """The pictures and classes of the rows that have a class."""
    number = {name: index for index, name in enumerate(names)}
    missing = set(table.missing)
    pictures, labels = [], []
    for row, value in enumerate(table.classes):
        if row in missing:
            continue
        if isinstance(value, str) and value not in number:
            raise DataError(
                f"{request.source!r}: row {row} of {table.name} has the {label} {value!r}, which "
                f"no training row has; {suggestion(value, names)}"
            )
        name = f"row {row} of {table.name} of {request.source!r}"
        pictures.append(Picture(name, partial(_content, table, row)))
        labels.append(number[value] if isinstance(value, str) else int(value))
    return Part(pictures, labels)


def _content(table: _Table, row: int) -> Content:
    cell = table.rows[row][table.image]
    if isinstance(cell, Mapping):
        content: Content | None = cell.get("bytes") or (cell.get("path") and Path(cell["path"]))
        cell = content
    if cell is None:
        raise ValueError("it holds no picture")
    found: Content = cell
    return found
