"""Stratified cuts with fixed seeds: the same images are held out in every run."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distill.data.batched import select_images
from distill.data.source_splits import SourceSplits
from distill.data.splits import DataError, Split, per_class_indices
from distill.errors import suggestion

# Not the run's seed: two runs that differ in seed must be evaluated on the same held-out images.
_SEEDS = {"test": 101, "validation": 102, "subset": 103}


def hold_out(
    split: Split, classes: int, fraction: float, purpose: Literal["test", "validation"]
) -> tuple[Split, Split]:
    """Cut a stratified part out of a split.

    Of each class `fraction` of its images goes (rounded), at least one if the class has more
    than one, and never all of them.

    Args:
        split: what to cut from, with labels in 0..classes-1.
        classes: the number of classes.
        fraction: share of each class to cut, in (0, 1).
        purpose: what the part is for; each purpose has a fixed seed of its own.

    Returns:
        The rest and the part, both in the order of `split`.

    Raises:
        DataError: when the fraction is outside (0, 1) or no class has two images.
    """
    if not 0 < fraction < 1:
        raise DataError(
            f"{purpose}={fraction} came, a fraction above 0 and below 1 is needed; use for "
            "example 0.1"
        )
    members = per_class_indices(split.labels, classes)
    counts = [min(max(1, round(len(own) * fraction)), max(len(own) - 1, 0)) for own in members]
    if not any(counts):
        raise DataError(
            f"no class has more than one image, two are needed to hold one out for {purpose}; "
            "add images"
        )
    part = _choose(members, counts, purpose)
    rest = torch.ones(len(split), dtype=torch.bool)
    rest[part] = False
    return split.take(rest.nonzero().flatten()), split.take(part)


def keep_subset(split: Split, classes: int, count: int) -> Split:
    """Keep at most `count` images, stratified: class shares stay, at least one of each class.

    Args:
        split: what to choose from, with labels in 0..classes-1.
        classes: the number of classes.
        count: the most images to keep, at least `classes`.

    Returns:
        Exactly `count` images in the order of `split`, or `split` itself if it has no more.

    Raises:
        DataError: when `count` is below `classes`.
    """
    if count < classes:
        raise DataError(
            f"subset={count} came, but {classes} classes need at least one image each; "
            f"raise subset to {classes} or more"
        )
    if count >= len(split):
        return split
    members = per_class_indices(split.labels, classes)
    return split.take(_choose(members, _shares([len(own) for own in members], count), "subset"))


def keep_classes(splits: SourceSplits, wanted: Sequence[str | int]) -> SourceSplits:
    """Keep some classes only, renumbered in the order of `wanted`.

    Args:
        splits: what a source gave.
        wanted: names of at least two classes, or their numbers from 0; where classes are named by
            numbers, a number is a name.

    Raises:
        DataError: for a class that is missing, repeated, or without test images.
    """
    numbers = [_class_number(splits.class_names, name) for name in wanted]
    if len(set(numbers)) != len(numbers) or len(numbers) < 2:
        raise DataError(
            f"classes={list(wanted)} came, at least two different classes are needed; name each "
            "once"
        )
    new = torch.full((len(splits.class_names),), -1)
    new[torch.tensor(numbers)] = torch.arange(len(numbers))

    def kept(split: Split, name: str) -> Split:
        labels = new[split.labels]
        indices = torch.nonzero(labels >= 0).flatten()
        if not len(indices):
            raise DataError(f"the {name} part has no image of {list(wanted)}; name other classes")
        return Split(select_images(split.images, indices), labels[indices])

    validation = splits.validation
    return SourceSplits(
        kept(splits.train, "train"),
        kept(splits.test, "test"),
        tuple(splits.class_names[number] for number in numbers),
        None if validation is None else kept(validation, "validation"),
        notes=splits.notes,
        damaged=splits.damaged,
    )


def _class_number(names: tuple[str, ...], wanted: str | int) -> int:
    """The place of a class; a number is a name where any class is named by a number."""
    text = str(wanted)
    if text in names:
        return names.index(text)
    if _is_number(text):
        number = int(text)
        by_number = [(int(name), place) for place, name in enumerate(names) if _is_number(name)]
        places = [place for own, place in by_number if own == number]
        if len(places) == 1:
            return places[0]
        if not by_number and number < len(names):
            return number
    hint = suggestion(text, names) if len(names) <= 20 or isinstance(wanted, str) else ""
    raise DataError(
        f"classes: there is no class {wanted!r} among {len(names)}; {hint or 'number them from 0'}"
    )


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _choose(members: tuple[Tensor, ...], counts: list[int], purpose: str) -> Tensor:
    """Pick counts[k] of members[k]; indices [sum(counts)], ascending."""
    chosen = []
    for label, (own, count) in enumerate(zip(members, counts, strict=True)):
        # RandomState's stream is frozen by NumPy's compatibility policy (NEP 19); those of
        # default_rng and torch may change with a version, and with them the held-out images.
        order = np.random.RandomState([_SEEDS[purpose], label]).permutation(len(own))
        chosen.append(own[torch.from_numpy(order[:count])])
    return torch.cat(chosen).sort().values


def _shares(sizes: list[int], count: int) -> list[int]:
    """Distribute `count` in proportion to `sizes`, largest remainder first, at least 1 each.

    Needs len(sizes) <= count <= sum(sizes). A class without images gets none.
    """
    size = np.array(sizes, dtype=np.int64)
    least = np.minimum(size, 1)
    shares = np.maximum(count * size // size.sum(), least)
    # In whole numbers: how far a class is below its exact share, times the sum of sizes.
    while (left := count - shares.sum()) != 0:
        below = count * size - shares * size.sum()
        if left > 0:
            shares[np.argmax(below)] += 1
        else:
            shares[np.argmin(np.where(shares > least, below, np.iinfo(np.int64).max))] -= 1
    return [int(share) for share in shares]
