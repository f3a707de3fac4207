"""Coded real images, as many as fit into the bytes of a set: drawn at random, and herded.

How they are kept is chosen for each student and label source on the validation split, by trainings
on the random images of seed 0: a short one in each way, then a whole one in the best few; the test
split chooses nothing. The herded ones are kept as the random ones are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distill.data import select_images
from distill.evaluation.jobs import CODED, STUDENTS, StudentJob
from distill.recipes.specs import parse_coding
from distill.run.context import Context
from distill.sets.coded_images import (
    FIRST_IPC,
    CodedImages,
    code_images,
    largest,
    most_per_class,
    usable_ways,
)
from distill.sets.coded_set import coding_spec
from distill.sets.cost import hard_bytes
from distill.sets.set_file import SetFile
from synth.coding import open_images
from synth.images import Images
from synth.matching.start import class_labels
from synth.selection import Pixels, choose_per_class, herding

# A short training has one epoch for this many of a student's. Few images need more epochs than
# many, so that the best few ways are trained once more for all of them.
SEARCH_SHARE = 5
FINALISTS = 5

# How near the number of images comes to the largest that fits: in the search, and in the end.
_ROUGH, _FINE = 0.05, 0.01

# Of real images per class: images in class order. Fewer are the first of more of each class.
Draw = Callable[[int], Images]


@dataclass(frozen=True)
class CodedReal:
    """Real images that fit into a budget.

    Attributes:
        coding: spec.
        ipc: stored images per class.
        bytes: that they take with their labels and what reads them; of the largest draw's.
        factor: factor^2 real images are formed in each stored one.
    """

    coding: str
    ipc: int
    bytes: int
    factor: int = 1

    @property
    def per_class(self) -> int:
        """Real images per class, which are those that students see."""
        return self.ipc * self.factor**2

    @property
    def words(self) -> dict[str, Any]:
        """What is stated beside the accuracy, but the number of images."""
        return {"coding": self.coding, "factor": self.factor, "bytes": self.bytes}


def random_draw(context: Context, seed: int) -> Draw:
    """Random real images of a seed, normalised."""

    def draw(per_class: int) -> Images:
        generator = context.generator("evaluate", "random images", seed)
        return context.random_real(per_class, generator)[0]

    return draw


def herded_draw(context: Context) -> Draw:
    """Real images whose mean stays nearest to that of their class, by their normalised pixels.

    They are the same for every seed.
    """

    def draw(per_class: int) -> Images:
        # Powers of two, so that a search for their number does not choose anew for every guess.
        most = most_per_class(context, 1)
        count = max(per_class, min(1 << (per_class - 1).bit_length(), most))
        places = context.once("herded", partial(_herded, context, count), count)
        images, _ = context.split("train")
        return select_images(images, places[:, :per_class].flatten())

    return draw


def _herded(context: Context, count: int) -> Tensor:
    """Places [k, count] of real images in the order of herding."""
    images, labels = context.split("train")
    places = choose_per_class(Pixels(images), labels.cpu(), context.classes, count, herding)
    return places.view(context.classes, count)


def coded_real(context: Context, draw: Draw, job: StudentJob) -> tuple[Tensor, Tensor]:
    """The images of a job of coded real images, as its student sees them, and their labels."""
    ipc = job.ipc or 1
    coded = code_images(context, job.coding, ipc, job.factor)
    per_class = ipc * job.factor**2
    with torch.no_grad():
        seen = coded.seen(coded.start_real(draw(per_class)))
    return seen, class_labels(context.classes, per_class).to(context.device)


def own_way(content: SetFile) -> tuple[str, int] | None:
    """The coding and the formation factor of a set, if its images are coded."""
    if content.coded is None:
        return None
    return coding_spec(open_images(content.coded)[0]), content.factor


def offered_ways(context: Context, own: tuple[str, int] | None) -> list[tuple[str, int]]:
    """The ways to keep images that a search may choose, with that of the set."""
    ways = usable_ways(context)
    known = [(parse_coding(spec), factor) for spec, factor in ways]
    if own is None or (parse_coding(own[0]), own[1]) in known:
        return ways
    return ways + usable_ways(context, own[:1], own[1:])


def candidates(
    context: Context, budget: int, shared: int, own: tuple[str, int] | None = None
) -> list[CodedReal]:
    """Each way to keep images, with as many as fit of the random images of seed 0.

    Where not even one image per class fits in any, the smallest is used: the control then takes
    more bytes than the set, and reports them.

    Args:
        context: real images and seeds.
        budget: bytes of everything.
        shared: bytes of what reads the images, which are the same for the set.
        own: the way of the set, which is tried too.
    """
    draws = [random_draw(context, 0)]
    fitted = [
        fit(context, draws, CodedReal(spec, FIRST_IPC, 0, factor), budget, shared, tolerance=_ROUGH)
        for spec, factor in offered_ways(context, own)
        if most_per_class(context, factor)
    ]
    within = [real for real in fitted if real.bytes <= budget]
    return within or [min(fitted, key=lambda real: real.bytes)]


def fit(
    context: Context,
    draws: Sequence[Draw],
    first: CodedReal,
    budget: int,
    shared: int,
    *,
    tolerance: float = _FINE,
) -> CodedReal:
    """As many real images per class as fit in one way, of each of some draws.

    At least one stored image, and at most what the smallest class suffices for.

    Args:
        context: real images.
        draws: of images that must all fit.
        first: the way to keep them, and stored images per class to try first.
        budget: bytes of everything.
        shared: bytes of what reads the images.
        tolerance: see `largest`.
    """
    sizes: dict[tuple[int, int], int] = {}

    def size(ipc: int, place: int) -> int:
        if (ipc, place) not in sizes:
            context.stop.check()
            coded = code_images(context, first.coding, ipc, first.factor)
            taken = _bytes(context, coded, draws[place], ipc)
            sizes[ipc, place] = shared + taken
        return sizes[ipc, place]

    most, guess = most_per_class(context, first.factor), first.ipc
    for place in range(len(draws)):
        own = partial(size, place=place)
        most = max(1, largest(own, budget, most, first=guess, tolerance=tolerance))
        guess = most
    taken = max(size(most, place) for place in range(len(draws)))
    return replace(first, ipc=most, bytes=taken)


def _bytes(context: Context, coded: CodedImages, draw: Draw, ipc: int) -> int:
    """Bytes of coded images and of their classes."""
    payload = coded.pack(coded.start_real(draw(ipc * coded.factor**2)))
    return len(payload) + hard_bytes(class_labels(context.classes, ipc), context.classes)


def plan_search(
    jobs: Sequence[StudentJob],
    offered: Mapping[tuple[str, str], Sequence[CodedReal]],
    epochs: int | None = None,
) -> list[tuple[StudentJob, CodedReal]]:
    """A training under every candidate of each student and label source.

    Args:
        jobs: of the evaluation; those of seed 0 on the set are taken up.
        offered: candidates by (student, label source).
        epochs: of each training; None for all.
    """
    return [
        (replace(_on(job, CODED, real), trial=True, epochs=epochs), real)
        for job in jobs
        if job.group == STUDENTS and job.seed == 0
        for real in offered[job.student, job.labels]
    ]


def best_candidates(
    graded: Iterable[tuple[StudentJob, CodedReal, float]], count: int
) -> dict[tuple[str, str], list[CodedReal]]:
    """The candidates of the best accuracies by (student, label source); the first of equals."""
    found: dict[tuple[str, str], list[tuple[float, CodedReal]]] = {}
    for job, real, value in graded:
        found.setdefault((job.student, job.labels), []).append((value, real))
    return {
        key: [real for _, real in sorted(values, key=lambda pair: -pair[0])[:count]]
        for key, values in found.items()
    }


def plan_coded(
    jobs: Sequence[StudentJob], group: str, chosen: Mapping[tuple[str, str], CodedReal]
) -> list[StudentJob]:
    """Coded real images in as many bytes as the set, beside every student on the set."""
    return [
        _on(job, group, chosen[job.student, job.labels]) for job in jobs if job.group == STUDENTS
    ]


def _on(job: StudentJob, group: str, real: CodedReal) -> StudentJob:
    return replace(job, group=group, ipc=real.ipc, coding=real.coding, factor=real.factor)


def describe_coded(
    controls: dict[str, Any], chosen: Mapping[tuple[str, str], CodedReal], classes: int
) -> None:
    """Add to each accuracy of the control its number of images, their coding and their bytes."""
    for student, sources in controls.items():
        for source, stats in sources.items():
            real = chosen[student, source]
            stats |= {"images": real.per_class * classes, **real.words}
