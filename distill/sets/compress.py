"""The nearest that a set can be kept in a given number of bytes.

Each way to keep images that has a scale from fine to coarse (a depth, a number of colours, a step)
takes the finest that fits into the budget; of these ways, the one wins whose decoded images are
nearest in mean squared error. See `docs/methods/bytes.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import RecipeError, WorkError
from distill.recipes.build import build_coding
from distill.sets.coded_set import best_coder, class_runs, coding_spec, pack_labels, unpack_labels
from distill.sets.cost import count_bytes
from distill.sets.set_file import SetFile, code_images, read_set, set_path, write_set
from synth.coding import ImageCoding, Pixels, Shape, pack_images
from synth.formation import decode_images
from synth.images import gather

# Learned labels may take this share of a budget; where they do not fit, hard labels must do.
LABEL_SHARE = 0.25

_DEPTHS = tuple(range(8, 0, -1))

_COLOURS = (256, 64, 32, 24, 16, 12, 8, 6, 5, 4, 3, 2)

# 32 steps for each doubling, from half a grey value to more than the range of pixels.
_STEPS = tuple(float(f"{0.002 * 2 ** (place / 32):.3g}") for place in range(352))

# What a coefficient may be in steps: by default, and at most.
_USUAL, _MOST = 64, 1024

# 0 is best for the squared error at high rates; steps that grow keep more of what is seen.
_SLOPES = (0.0, 0.5)

_BLOCKS = (8, 7, 6, 5, 4)


@dataclass(frozen=True)
class Compressed:
    """A set in few bytes.

    Attributes:
        content: the set with coded images; labels that belonged to others are left out.
        coding: how its images are kept.
        error: mean squared error of the pixels that students see, in [0, 1].
        bytes: of everything, see `distill.sets.cost.count_bytes`; `total` counts all labels that
            the set holds.
    """

    content: SetFile
    coding: ImageCoding
    error: float
    bytes: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write set.h5."""
        write_set(Path(path), self.content)


def compress_set(content: SetFile, budget: int) -> Compressed:
    """Keep a set in at most `budget` bytes of everything.

    Learned labels are kept as near as a quarter of the budget allows, or left out where they do
    not fit; voted ones are left out. Images that a tower refined take the place of the stored ones.

    Args:
        content: any set.
        budget: bytes of images, labels and what reads them, containers included; at least 1.

    Raises:
        WorkError: if even the coarsest coding takes more.
    """
    stored = content.images if content.refined is None else content.refined
    pixels = content.preprocess.inverse(gather(stored)).detach()
    labelled = _with_labels(replace(content, refined=None), int(budget * LABEL_SHARE))
    # Everything but the images.
    besides = _total(replace(labelled, coded=b""))
    best: tuple[float, bytes, ImageCoding] | None = None
    least: int | None = None
    n, c, h, w = pixels.shape
    groups = class_runs(content.hard, len(content.manifest["class_names"]))
    for way in _ways((n, c, h, w), groups):
        payload, coding, smallest = _finest(way, pixels, budget - besides)
        least = smallest if least is None else min(least, smallest)
        if payload is None or coding is None:
            continue
        error = _error(coding, pixels, content.factor)
        if best is None or error < best[0]:
            best = (error, payload, coding)
    if best is None:
        raise WorkError(
            f"a budget of {budget:,} bytes, but these {len(pixels)} images take at least "
            f"{least:,}, and labels and settings {besides:,}; allow more bytes, or make fewer "
            "or smaller images"
        )
    error, payload, coding = best
    coded = code_images(labelled, payload)
    return Compressed(coded, coding, error, {**count_bytes(coded), "total": _total(coded)})


def _with_labels(content: SetFile, most: int) -> SetFile:
    """The set with hard labels, and learned ones in at most `most` bytes where they fit."""
    kept = replace(content, votes=None, encoded={}, measured=None)
    payload = None if content.learned is None else pack_labels(content.learned, most)
    learned = None if payload is None else unpack_labels(payload)
    return replace(kept, learned=learned, coded_labels=payload)


def _total(content: SetFile) -> int:
    """Bytes of the set with all labels that it holds."""
    counted = count_bytes(content)
    learned: int = counted["sources"].get("learned", 0)
    total: int = counted["totals"]["hard"]
    return total + learned


def _ways(shape: Shape, groups: int = 1) -> Iterator[Sequence[ImageCoding]]:
    """Ways to keep images of a shape, each from the finest to the coarsest."""
    families = [
        ["pixels"],
        [f"rounded:depth={depth}" for depth in _DEPTHS],
        [f"palette:colours={colours}" for colours in _COLOURS],
    ]
    _, _, h, w = shape
    block = next((side for side in _BLOCKS if h % side == 0 == w % side and side < h), None)
    for side in (0, block):
        if side is not None:
            longest = side or math.sqrt(h * w)
            families += [_frequencies(side, longest, slope) for slope in _SLOPES]
    for family in families:
        try:
            yield [build_coding(spec, shape, groups) for spec in family]
        except RecipeError:
            continue  # frequencies of images that are neither gray nor coloured


def _frequencies(block: int, side: float, slope: float) -> list[str]:
    """Specs of all steps at which no coefficient of a block passes its largest magnitude.

    Args:
        block: side of the blocks, 0 for the whole image.
        side: root of the pixels of a block; half of it bounds a coefficient of pixels in [0, 1].
        slope: how the steps grow.
    """
    found = []
    for step in _STEPS:
        largest = math.ceil(side / 2 / step)
        if largest <= _MOST:
            bound = f":largest={largest}" if largest > _USUAL else ""
            found.append(f"frequency:step={step}:slope={slope}:block={block}{bound}")
    return found


def _finest(
    way: Sequence[ImageCoding], pixels: Tensor, room: int
) -> tuple[bytes | None, ImageCoding | None, int]:
    """The finest coding that fits into `room` bytes, with its payload, and the fewest bytes seen.

    Codings are bisected: a coarser one is taken to need no more bytes.
    """
    coder = best_coder()
    low, high = 0, len(way)
    found: tuple[bytes | None, ImageCoding | None] = (None, None)
    payload = _pack(way[-1], pixels, coder)
    least = len(payload)
    if least > room:
        return None, None, least
    while low < high:
        middle = (low + high) // 2
        payload = _pack(way[middle], pixels, coder)
        if len(payload) <= room:
            found, high = (payload, way[middle]), middle
        else:
            low = middle + 1
    return *found, least


def _pack(coding: ImageCoding, pixels: Tensor, coder: str) -> bytes:
    return pack_images(coding, _start(coding, pixels), coder)


def _start(coding: ImageCoding, pixels: Tensor) -> Tensor:
    """Parameters of the coding; only pixels as they are can leave [0, 1]."""
    return coding.start(pixels if isinstance(coding, Pixels) else pixels.clamp(0, 1))


def _error(coding: ImageCoding, pixels: Tensor, factor: int) -> float:
    """Mean squared error of what students see."""
    with torch.no_grad():
        decoded = coding.decode(_start(coding, pixels))
        return float(decode_images(decoded - pixels, factor).square().mean())


def compress_file(path: Path, budget: int, out: Path) -> dict[str, Any]:
    """Write a set in few bytes; returns what `distill compress --json` prints.

    Args:
        path: set.h5, or the folder of a run.
        budget: see `compress_set`.
        out: the new file.

    Raises:
        WorkError: if the set cannot be read or does not fit, or `out` is there already.
    """
    if out.exists():
        raise WorkError(f"--out {out} exists; name another file or remove it")
    made = compress_set(read_set(set_path(path)), budget)
    made.save(out)
    return {
        "set": str(out),
        "coding": coding_spec(made.coding),
        "error": made.error,
        "learned": made.content.learned is not None,
        "total": made.bytes["total"],
        "bytes": made.bytes,
    }


def code_set(content: SetFile, spec: str) -> SetFile:
    """The set with its images under a given coding; hard and learned labels stay as they are.

    Voted labels are left out. Images that a tower refined take the place of the stored ones.

    Args:
        content: any set.
        spec: of the coding.

    Raises:
        RecipeError: for a coding that does not exist, or that the images do not allow.
    """
    stored = content.images if content.refined is None else content.refined
    pixels = content.preprocess.inverse(gather(stored)).detach()
    n, c, h, w = pixels.shape
    groups = class_runs(content.hard, len(content.manifest["class_names"]))
    coding = build_coding(spec, (n, c, h, w), groups)
    return code_images(content, _pack(coding, pixels, best_coder()))
