"""Pack a data source, for the command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from distill.data import DataError, SourceError
from distill.data.loading import load_splits
from distill.data.sources.packed import pack_data
from distill.errors import RecipeError, WorkError
from distill.store.packed import is_pack, shard_path


class _Counter(Protocol):
    def __call__(self, *, count: int) -> None: ...


def pack_source(
    source: str,
    out: Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    validation: float = 0.1,
    skip_damaged: bool = False,
    task: Callable[[str, int], AbstractContextManager[_Counter]],
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Pack a source into the folder `out`; returns its digest, images of each split, bytes, notes.

    Args:
        source: as in a recipe's data.source.
        out: the new folder, or that of an earlier pack, which stays until this one is whole.
        size: side of the images in pixels; None for as they are.
        channels: 1 or 3; None for as they are.
        validation: share of the training images that is held out.
        skip_damaged: leave out pictures that cannot be read.
        task: shows progress: called with a name and the number of images.
        check: called between batches; what it raises ends the work, and nothing of it is left.

    Raises:
        RecipeError: for an unknown source.
        WorkError: if the data are missing or wrong, or cannot be written, or `out` holds
            something else than a pack.
    """
    if out.exists() and not (out.is_dir() and (is_pack(out) or not any(out.iterdir()))):
        raise WorkError(f"--out {out} holds what is no pack; name a new or empty folder")
    try:
        splits = load_splits(
            source,
            size=size,
            channels=channels,
            validation=validation,
            skip_damaged=skip_damaged,
        )
        total = sum(map(len, splits.three))
        with task("pack", total) as advance:

            def tell(count: int) -> None:
                advance(count=count)
                check()

            index = pack_data(splits, source, out, tell)
    except SourceError as error:
        raise RecipeError(f"data {source}: {error}") from None
    except (DataError, OSError) as error:
        raise WorkError(f"data {source}: {error}") from None
    shards = [
        shard_path(out, name, number)
        for name, counts in index.shards.items()
        for number in range(len(counts))
    ]
    return {
        "digest": index.digest,
        "images": {name: sum(counts) for name, counts in index.shards.items()},
        "bytes": sum(path.stat().st_size for path in shards),
        "notes": list(index.notes),
    }
