"""Packing a data source, as the command asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.data import DataError, SourceError
from distill.data.packed import pack_data
from distill.data.sources import cut_parts
from distill.errors import RecipeError, WorkError
from distill.progress import Progress
from distill.store.packed import shard_path


def pack_source(
    source: str,
    out: Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    validation: float = 0.1,
    quiet: bool = False,
) -> dict[str, Any]:
    """Pack a source into the folder `out`; returns its digest, images of each split and bytes.

    Raises:
        RecipeError: for an unknown source.
        WorkError: if the data are missing or wrong, or cannot be written.
    """
    try:
        parts = cut_parts(source, size=size, channels=channels, validation=validation)
        total = sum(map(len, parts.three))
        with Progress(quiet=quiet).task("pack", total) as advance:
            index = pack_data(parts, source, out, lambda count: advance(count=count))
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
    }
