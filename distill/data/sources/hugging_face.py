"""The `hf` source: image data sets through Hugging Face's package `datasets` (extra `hf`)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from distill.data.cutting import hold_out
from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.gathering import lazy_split
from distill.data.splits import DataError, SourceError, Split

_TESTS = ("test", "validation", "valid")


def read_hugging_face(request: Request) -> SourceSplits:
    """Read `hf:NAME`, `hf:NAME@CONFIG`, or `hf:PATH` of a local folder of such a set.

    The columns of images and of classes are found by their types. The test part is the split
    "test", else "validation"; where there is neither, a stratified fifth is held out. Nothing is
    fetched here, see `fetch_hugging_face`.

    Raises:
        SourceError: when there is no name.
        DataError: when `datasets` is not installed, the set cannot be had, or it has no images
            with classes.
    """
    if not request.argument:
        raise SourceError(f"source {request.source!r} lacks a name; write it as hf:NAME")
    from projectors.model.offline import offline

    splits = _load(request, offline())
    if "train" not in splits:
        raise DataError(
            f"{request.source!r} has the splits {', '.join(splits)}, but train is needed; name "
            "another set"
        )
    image, label, names = _columns(request, splits["train"])
    train, names = _decoded(splits["train"], image, label, request, names)
    test_name = next((name for name in _TESTS if name in splits), None)
    if test_name is None:
        train, test = hold_out(train, len(names), 0.2, "test")
    else:
        test, names = _decoded(splits[test_name], image, label, request, names)
    return SourceSplits(train, test, names)


def fetch_hugging_face(source: str) -> None:
    """Fetch the files of a `hf:...` source into the hub's cache; other sources have none.

    Raises:
        DataError: when they cannot be fetched.
    """
    kind, _, argument = source.partition(":")
    if kind == "hf" and argument:
        _load(Request(source, argument), nullcontext())


def _load(request: Request, network: AbstractContextManager[None]) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{request.source!r} needs the package datasets, which is not installed; install "
            "limbeck[hf]"
        ) from None
    name, _, config = request.argument.partition("@")
    local = Path(name).expanduser()
    try:
        with network:
            return datasets.load_dataset(str(local) if local.exists() else name, config or None)
    except Exception as error:  # noqa: BLE001 - hub, network, cache and parsers each have their own
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"{request.source!r} cannot be had ({type(error).__name__}: {reason}); check the name, "
            "or add --download where there is a network, which fetches it once"
        ) from None


def _columns(request: Request, split: Any) -> tuple[str, str, tuple[str, ...] | None]:
    """Names of the columns of images and classes, and the classes' names."""
    kinds = {name: type(feature).__name__ for name, feature in split.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    if not labels:
        # A table that was not described: a column of whole numbers with a usual name.
        labels = [name for name in ("label", "labels", "class", "fine_label") if name in kinds]
    if not images or not labels:
        raise DataError(
            f"{request.source!r} has the columns {', '.join(kinds)}, but one of images and one of "
            "classes are needed; name another set"
        )
    names = getattr(split.features[labels[0]], "names", None)
    return images[0], labels[0], tuple(names) if names else None


def _decoded(
    split: Any, image: str, label: str, request: Request, names: tuple[str, ...] | None
) -> tuple[Split, tuple[str, ...]]:
    # A column by its name leaves the others, with all images, as they are.
    labels = [int(value) for value in split[label]]
    return lazy_split(lambda index: split[index][image], labels, request, names)
