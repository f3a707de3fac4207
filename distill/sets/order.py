"""A nested order of a set: the first images of each class are a good smaller set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import WorkError
from distill.sets.cost import count_bytes
from distill.sets.rows import take_images
from distill.sets.set_file import SetFile, read_set, set_path, write_set
from synth.formation import decode_images
from synth.images import gather
from synth.selection import herding


def order_set(content: SetFile, first: int | None = None) -> tuple[SetFile, tuple[str, ...]]:
    """The set with its classes in order, and the images of each in the order of herding.

    Of the images that students see, the mean of the first k stays as near to the mean of all of
    the class as a greedy choice can bring it, for every k. Source: Welling 2009; as the exemplars
    of iCaRL (Rebuffi et al. 2017), of which the first k are kept as well.

    Args:
        content: any set.
        first: keep only so many stored images of each class, or all of a class that has fewer;
            None for all.

    Returns:
        The set, and sentences on what was left out; see `distill.sets.rows.take_images`.
    """
    places = herded_places(content)
    if first is not None:
        places = places[first_places(content.hard[places], first)]
    return take_images([content], places)


def herded_places(content: SetFile) -> Tensor:
    """The places [n] of the stored images, class by class in the order of herding."""
    stored = gather(content.images if content.refined is None else content.refined).cpu()
    places = []
    for label in content.hard.unique().tolist():
        members = torch.nonzero(content.hard == label).flatten()
        # A stored image stands for all that it decodes to.
        seen = decode_images(stored[members], content.factor)
        features = seen.reshape(len(members), content.factor**2, -1).mean(dim=1)
        places.append(members[herding(features, len(members))])
    return torch.cat(places)


def first_places(hard: Tensor, ipc: int) -> Tensor:
    """Places, ascending, of the first `ipc` of each class in [n]."""
    order = hard.argsort(stable=True)
    counts = hard.bincount()
    rank = torch.empty_like(hard)
    rank[order] = torch.arange(len(hard)) - (counts.cumsum(0) - counts)[hard[order]]
    return torch.nonzero(rank < ipc).flatten()


def order_file(path: Path, out: Path, first: int | None = None) -> dict[str, Any]:
    """Write an ordered set; returns what `distill order --json` prints.

    Args:
        path: set.h5, or the folder of a run.
        out: the new file.
        first: see `order_set`.

    Raises:
        WorkError: if the set cannot be read, or `out` is there already.
    """
    if out.exists():
        raise WorkError(f"--out {out} exists; name another file or remove it")
    content, notes = order_set(read_set(set_path(path)), first)
    write_set(out, content)
    return {
        "set": str(out),
        "images": len(content.images),
        "bytes": count_bytes(content),
        "notes": list(notes),
    }
