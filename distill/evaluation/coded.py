"""The control at equal bytes: random real images, coded, as many as fit into the bytes of a set.

The coding is chosen for each student and label source on the validation split, by a short training
on the images of seed 0 under each of `CANDIDATES`; the test split chooses nothing. The search is
the same for every set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from distill.errors import RecipeError
from distill.evaluation.jobs import CODED, STUDENTS, StudentJob
from distill.recipes.build import build_coding
from distill.recipes.tables.evaluate import EvaluateTable
from distill.run.context import Context
from distill.sets.coded_set import best_coder
from distill.sets.cost import hard_bytes
from synth.coding import Shape, pack_images
from synth.images import Images, gather

# From one bit a pixel to about five, and frequencies about as fine; real images of 28x28 take 33
# bytes under the first.
CANDIDATES = (
    "rounded:depth=1",
    "rounded:depth=2",
    "palette:colours=4",
    "frequency:step=0.2",
    "frequency:step=0.4",
    "frequency:step=0.8",
)

# A training of the search has one epoch for this many of a student's.
SEARCH_SHARE = 5

# Images per class that the search for their number starts from.
_FIRST = 8

# How near the number of images comes to the largest that fits: in the search, and in the end.
_ROUGH, _FINE = 0.05, 0.01


@dataclass(frozen=True)
class CodedReal:
    """Real images that fit into a budget.

    Attributes:
        coding: spec.
        ipc: images per class.
        bytes: that they take with their labels and what reads them; of the largest seed's.
    """

    coding: str
    ipc: int
    bytes: int


def real_images(
    context: Context, ipc: int, generator: Generator, spec: str
) -> tuple[Images, Tensor]:
    """Random real images, normalised, and their labels; with a coding, as its receiver gets them.

    Args:
        context: real images.
        ipc: images per class.
        generator: of the draw; fewer images are the first ones of more.
        spec: of the coding, "" for none.
    """
    images, labels = context.random_real(ipc, generator)
    if not spec:
        return images, labels
    pixels = _pixels(context, gather(images))
    coding = build_coding(spec, shape_of(pixels), context.classes)
    with torch.no_grad():
        return context.preprocess(coding.decode(coding.start(pixels))), labels


def shape_of(images: Tensor) -> Shape:
    """[n, c, h, w]."""
    n, c, h, w = images.shape
    return n, c, h, w


def _pixels(context: Context, images: Tensor) -> Tensor:
    return context.preprocess.inverse(images).clamp(0, 1)


def candidates(context: Context, budget: int, shared: int) -> list[CodedReal]:
    """Each of `CANDIDATES` that the images allow, with as many as fit of the images of seed 0.

    Where not even one image per class fits under any, the smallest is used: the control then takes
    more bytes than the set, and reports them.

    Args:
        context: real images and seeds.
        budget: bytes of everything.
        shared: bytes of what reads the images, which are the same for the set.
    """
    c, h, w = context.data.channels, *context.data.size
    fitted = []
    for spec in CANDIDATES:
        try:
            build_coding(spec, (1, c, h, w))
        except RecipeError:
            continue
        first = CodedReal(spec, _FIRST, 0)
        fitted.append(fit(context, first, budget, shared, seeds=1, tolerance=_ROUGH))
    within = [real for real in fitted if real.bytes <= budget]
    return within or [min(fitted, key=lambda real: real.bytes)]


def fit(
    context: Context,
    first: CodedReal,
    budget: int,
    shared: int,
    *,
    seeds: int,
    tolerance: float = _FINE,
) -> CodedReal:
    """As many random real images per class as fit under a coding, for each of the seeds.

    At least one, and at most those of the smallest class.

    Args:
        context: real images and seeds.
        first: the coding, and images per class to try first.
        budget: bytes of everything.
        shared: bytes of what reads the images.
        seeds: draws of images that must all fit.
        tolerance: see `largest`.
    """
    labels = context.split("train")[1]
    most = int(torch.bincount(labels, minlength=context.classes).min())
    sizes: dict[tuple[int, int], int] = {}

    def size(ipc: int, seed: int) -> int:
        if (ipc, seed) not in sizes:
            context.stop.check()
            sizes[ipc, seed] = shared + _bytes(context, first.coding, ipc, seed)
        return sizes[ipc, seed]

    guess = first.ipc
    for seed in range(seeds):
        most = largest(partial(size, seed=seed), budget, most, first=guess, tolerance=tolerance)
        guess = most
    return CodedReal(first.coding, most, max(size(most, seed) for seed in range(seeds)))


def _bytes(context: Context, spec: str, ipc: int, seed: int) -> int:
    """Bytes of coded images and of their classes."""
    generator = context.generator("evaluate", "random images", seed)
    images, labels = context.random_real(ipc, generator)
    pixels = _pixels(context, gather(images)).cpu()
    coding = build_coding(spec, shape_of(pixels), context.classes)
    payload = pack_images(coding, coding.start(pixels), best_coder())
    return len(payload) + hard_bytes(labels.cpu(), context.classes)


def largest(
    size: Callable[[int], int], budget: int, most: int, *, first: int, tolerance: float
) -> int:
    """The largest count of at most `most` whose size fits; 1 where none does.

    Args:
        size: count -> bytes, about proportional to the count.
        budget: bytes.
        most: largest count, at least 1.
        first: count to try first.
        tolerance: share of the count by which it may be too small; below 1 / tolerance, it is
            the largest.
    """
    low, high = 0, most + 1
    guess = min(first, most)
    while high - low > max(1, int(low * tolerance)):
        taken = size(guess)
        if taken <= budget:
            low = guess
        else:
            high = guess
        # In proportion to the bytes of this guess, within the bounds.
        guess = min(max(guess * budget // taken, low + 1), high - 1)
    return max(low, 1)


def plan_search(
    jobs: Sequence[StudentJob], epochs: int, offered: Mapping[str, Sequence[CodedReal]]
) -> list[tuple[StudentJob, CodedReal]]:
    """Short trainings under every candidate, one for each student and label source.

    Args:
        jobs: of the evaluation; those of seed 0 on the set are taken up.
        epochs: of its students.
        offered: candidates by label source.
    """
    return [
        (
            replace(
                job,
                group=CODED,
                trial=True,
                ipc=real.ipc,
                coding=real.coding,
                epochs=max(1, epochs // SEARCH_SHARE),
            ),
            real,
        )
        for job in jobs
        if job.group == STUDENTS and job.seed == 0
        for real in offered[job.labels]
    ]


def best_codings(
    graded: Iterable[tuple[StudentJob, CodedReal, float]],
) -> dict[tuple[str, str], CodedReal]:
    """The candidate of the best accuracy by (student, label source); the first of equals."""
    best: dict[tuple[str, str], tuple[float, CodedReal]] = {}
    for job, real, value in graded:
        key = (job.student, job.labels)
        if key not in best or value > best[key][0]:
            best[key] = (value, real)
    return {key: real for key, (_, real) in best.items()}


def plan_coded(
    jobs: Sequence[StudentJob], chosen: Mapping[tuple[str, str], CodedReal]
) -> list[StudentJob]:
    """Coded real images in as many bytes as the set, beside every student on the set."""
    controls = []
    for job in jobs:
        if job.group == STUDENTS:
            real = chosen[job.student, job.labels]
            controls.append(replace(job, group=CODED, ipc=real.ipc, coding=real.coding))
    return controls


def describe_coded(
    controls: dict[str, Any], chosen: Mapping[tuple[str, str], CodedReal], classes: int
) -> None:
    """Add to each accuracy of the control its number of images, their coding and their bytes."""
    for student, sources in controls.items():
        for source, stats in sources.items():
            real = chosen[student, source]
            stats |= {
                "images": real.ipc * classes,
                "coding": real.coding,
                "bytes": real.bytes,
            }


def coded_protocol(context: Context, table: EvaluateTable) -> dict[str, Any]:
    """How the control is made, in plain values."""
    return {
        "as": "hard",
        "candidates": list(CANDIDATES),
        "on": f"{len(context.data.validation)} validation images, one student of each kind, "
        f"{max(1, table.epochs // SEARCH_SHARE)} epochs",
        "coder": best_coder(),
    }
