"""The nearest that a set can be kept in a given number of bytes.

Each way to keep images that has a scale from fine to coarse (a depth, a number of colours, a step)
takes the finest that fits into the budget; of these ways, the one wins whose decoded images are
nearest in mean squared error. If asked to, finer settings of it are refined until they fit, see
`synth.coding.refine`, and the nearest is kept. See `docs/methods/bytes.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import WorkError
from distill.recipes.build import build_coding
from distill.sets.additions import code_images
from distill.sets.coded_set import (
    OVER_ESTIMATE,
    best_coder,
    class_runs,
    coding_spec,
    pack_labels,
    unpack_labels,
)
from distill.sets.coding_ways import coding_ways, finest_that_fits, pack_pixels, start_of
from distill.sets.cost import count_bytes
from distill.sets.dataset import DistilledSet
from distill.sets.set_file import SetFile, read_set, set_path, write_set
from synth.coding import ImageCoding, Pixels
from synth.coding.refine import Refinement, nearest_that_fits, refine
from synth.formation import decode_images
from synth.images import gather

# Learned labels may take this share of a budget; where they do not fit, hard labels must do.
LABEL_SHARE = 0.25

# Refinement begins at a setting that is finer by this share of a way, and goes on in such strides:
# a fifth of the steps of frequencies, one depth, one number of colours.
_STRIDE = 1 / 40

# Decoded pixels [n, c, h, w] -> how far they are from the originals, a scalar.
Distance = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Compressed:
    """A set in few bytes.

    Attributes:
        content: the set with coded images; labels that belonged to others are left out.
        coding: how its images are kept.
        error: mean squared error of the pixels that students see, in [0, 1].
        plain_error: the same before refinement; equal where it brought the images no nearer.
        bytes: of everything, see `distill.sets.cost.count_bytes`; `total` counts all labels that
            the set holds.
    """

    content: SetFile
    coding: ImageCoding
    error: float
    plain_error: float
    bytes: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write set.h5."""
        write_set(Path(path), self.content)


@dataclass(frozen=True)
class _Kept:
    """Images under a coding: how far they are, and their bytes."""

    distance: float
    payload: bytes
    coding: ImageCoding
    parameters: Tensor


def squared_error(pixels: Tensor, factor: int) -> Distance:
    """The mean squared error of what students see.

    Args:
        pixels: stored originals [n, c, h, w].
        factor: each decodes to factor^2 images.
    """
    return lambda decoded: decode_images(decoded - pixels, factor).square().mean()


def compress_set(
    content: SetFile,
    budget: int,
    steps: int = 0,
    distance: Callable[[Tensor, int], Distance] = squared_error,
) -> Compressed:
    """Keep a set in at most `budget` bytes of everything.

    Learned labels are kept as near as a quarter of the budget allows, or left out where they do
    not fit; voted ones are left out. Images that a tower refined take the place of the stored ones.

    Args:
        content: any set.
        budget: bytes of images, labels and what reads them, containers included; at least 1.
        steps: gradient steps of refinement at each setting that is tried; 0 for none.
        distance: what refinement makes small, from the originals and the formation factor.

    Raises:
        WorkError: if even the coarsest coding takes more.
    """
    pixels = _pixels(content)
    labelled = _with_labels(replace(content, refined=None), int(budget * LABEL_SHARE))
    # Everything but the images.
    besides = _total(replace(labelled, coded=b""))
    way, plain = _nearest_way(content, pixels, budget, besides)
    error = squared_error(pixels, content.factor)
    kept = plain
    if steps:
        asked = distance(pixels, content.factor)
        kept = _refined(way, plain, pixels, asked, budget - besides, steps)
    with torch.no_grad():
        errors = [float(error(part.coding.decode(part.parameters))) for part in (kept, plain)]
    coded = code_images(labelled, kept.payload)
    counted = {**count_bytes(coded), "total": _total(coded)}
    return Compressed(coded, kept.coding, errors[0], errors[1], counted)


def _pixels(content: SetFile) -> Tensor:
    """The stored pixels [n, c, h, w] of a set, as a tower refined them if one did."""
    stored = content.images if content.refined is None else content.refined
    return content.preprocess.inverse(gather(stored)).detach()


def _groups(content: SetFile) -> int:
    """Runs of images of a class, for the codings; see `class_runs`."""
    return class_runs(content.hard, len(content.manifest["class_names"]))


def _nearest_way(
    content: SetFile, pixels: Tensor, budget: int, besides: int
) -> tuple[Sequence[ImageCoding], _Kept]:
    """Of the finest settings that fit, the one of the smallest squared error, and its way.

    Raises:
        WorkError: if even the coarsest coding takes more.
    """
    error = squared_error(pixels, content.factor)
    best: tuple[Sequence[ImageCoding], _Kept] | None = None
    least: int | None = None
    n, c, h, w = pixels.shape
    for way in coding_ways((n, c, h, w), _groups(content)):
        payload, coding, smallest = finest_that_fits(way, pixels, budget - besides)
        least = smallest if least is None else min(least, smallest)
        if payload is None or coding is None:
            continue
        parameters = start_of(coding, pixels)
        with torch.no_grad():
            found = _Kept(float(error(coding.decode(parameters))), payload, coding, parameters)
        if best is None or found.distance < best[1].distance:
            best = (way, found)
    if best is None:
        raise WorkError(
            f"a budget of {budget:,} bytes, but these {len(pixels)} images take at least "
            f"{least:,}, and labels and settings {besides:,}; allow more bytes, or make fewer "
            "or smaller images"
        )
    return best


def _refined(
    way: Sequence[ImageCoding],
    plain: _Kept,
    pixels: Tensor,
    distance: Distance,
    room: int,
    steps: int,
) -> _Kept:
    """The nearest of finer settings that are refined into `room` bytes, or what was there.

    Settings are taken from coarse to fine until one brings the images no nearer.
    """
    with torch.no_grad():
        best = replace(plain, distance=float(distance(plain.coding.decode(plain.parameters))))
    inside = pixels.clamp(0, 1)
    header = len(plain.payload) - len(plain.coding.pack(plain.parameters, best_coder()))
    settings, stride = Refinement(steps), max(1, round(len(way) * _STRIDE))
    for place in range(way.index(plain.coding) - stride, -1, -stride):
        coding = way[place]
        if isinstance(coding, Pixels):
            break
        budget = 8 * (room - header) / OVER_ESTIMATE[best_coder()]
        states = refine(coding, inside, distance, budget, settings)
        found = nearest_that_fits(coding, inside, states, distance, room, best_coder())
        if found is None or found[0] >= best.distance:
            break
        best = _Kept(found[0], found[2], coding, found[1])
    return best


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


def compress_given(given: object, budget: object, steps: object = 0) -> Compressed:
    """Compress what a user of Python gives; see `distill.compress`.

    Raises:
        WorkError: for an argument of another kind, and as `compress_set`.
    """
    if isinstance(given, DistilledSet):
        content = given.content
    elif isinstance(given, (str, Path)):
        content = read_set(set_path(Path(given)))
    else:
        raise WorkError(
            f"compress got a {type(given).__name__}; give a set.h5, the folder of a run, or what "
            "distill.load gave"
        )
    return compress_set(content, _whole("budget_bytes", budget, 1), _whole("steps", steps, 0))


def _whole(name: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise WorkError(f"{name} is {value!r}; give a whole number of at least {least}")
    return value


def compress_file(path: Path, budget: int, out: Path, steps: int = 0) -> dict[str, Any]:
    """Write a set in few bytes; returns what `distill compress --json` prints.

    Args:
        path: set.h5, or the folder of a run.
        budget: see `compress_set`.
        out: the new file.
        steps: see `compress_set`.

    Raises:
        WorkError: if the set cannot be read or does not fit, or `out` is there already.
    """
    if out.exists():
        raise WorkError(f"--out {out} exists; name another file or remove it")
    made = compress_set(read_set(set_path(path)), budget, steps)
    made.save(out)
    return {
        "set": str(out),
        "coding": coding_spec(made.coding),
        "error": made.error,
        "plain_error": made.plain_error,
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
    pixels = _pixels(content)
    n, c, h, w = pixels.shape
    coding = build_coding(spec, (n, c, h, w), _groups(content))
    return code_images(content, pack_pixels(coding, pixels, best_coder()))
