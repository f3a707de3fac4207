"""The health of a data source in sentences and numbers: what is wrong, and which settings fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from distill.data.health.copies import Copies, Pair, find_copies
from distill.data.health.survey import Stored, SurveyedPart, survey
from distill.data.notes import uneven_note
from distill.data.source_splits import SourceSplits
from distill.data.sources.gathering import left_out_note

# Pairs of a kind that are listed.
MOST_LISTED = 1000

# A picture so many times as long as wide loses half of itself to the central square.
_LONG = 2.0

# Sides in pixels that are usual for distillation, the largest first.
_USUAL_SIDES = (64, 32)


@dataclass(frozen=True, eq=False)
class Health:
    """What was found out about a data source.

    Attributes:
        source: as a recipe names it.
        class_names: in the order of the labels.
        parts: train, validation and test, as a run would cut them.
        copies: images that stand there twice.
        damaged: pictures that cannot be read, and why.
        notes: what the source says of itself: files passed over, parts taken for others.
    """

    source: str
    class_names: tuple[str, ...]
    parts: tuple[SurveyedPart, ...]
    copies: Copies
    damaged: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, list[int]]:
        """Part -> images of each class."""
        most = len(self.class_names)
        return {
            part.name: torch.bincount(part.labels, minlength=most).tolist() for part in self.parts
        }

    @property
    def stored(self) -> list[Stored]:
        """How each image of all parts is stored."""
        return [stored for part in self.parts for stored in part.stored]

    @property
    def modes(self) -> dict[str, int]:
        """Pillow's mode, or the number of channels of an array -> how many images."""
        count = self.parts[0].images.shape[1]
        channels = f"arrays of {count} channel{'s' if count > 1 else ''}"
        return dict(Counter(stored.mode or channels for stored in self.stored).most_common())

    def name(self, part: str, index: int) -> str:
        """The file, row or place of an image."""
        return next(own for own in self.parts if own.name == part).stored[index].name

    def findings(self) -> list[str]:
        """What is wrong, in sentences; empty for data in good health."""
        blank = sum(int(part.blank.sum()) for part in self.parts)
        found = [
            _damaged_sentence(self.damaged),
            _leak_sentence(self.copies.leaks, self.parts),
            _conflict_sentence(self.copies.conflicts),
            _within_sentence(self.copies.within),
            f"blank images: {blank}; remove them" if blank else "",
            uneven_note(self.parts[0].labels, self.class_names),
            _missing_sentence(self.counts, self.class_names),
            _gray_sentence(self.parts),
            _long_sentence(self.stored),
        ]
        return [sentence for sentence in found if sentence]

    def suggestions(self) -> list[str]:
        """Keys of a recipe that fit these data, with the reason for each."""
        fewest = min(self.counts["train"])
        images = self.parts[0].images
        gray = all(bool(part.gray.all()) for part in self.parts)
        found = [
            _size_suggestion(self.stored),
            "data.channels = 1: all images are gray, though not stored so"
            if gray and images.shape[1] == 3
            else "",
            f"ipc of at most {fewest}: the smallest class has {fewest} training images"
            if fewest < 50
            else "",
            "data.skip_damaged = true, or repair what is damaged" if self.damaged else "",
        ]
        return [sentence for sentence in found if sentence]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values; at most 1,000 pairs of each kind are listed."""
        heights = [(stored.height, stored.width) for stored in self.stored]
        _, channels, height, width = self.parts[0].images.shape
        copies = {
            "leaks": self.copies.leaks,
            "conflicts": self.copies.conflicts,
            "within": self.copies.within,
        }
        return {
            "source": self.source,
            "looked_at": {"channels": channels, "size": [height, width]},
            "classes": list(self.class_names),
            "images": self.counts,
            "stored": {
                "smallest": list(min(heights, key=min)),
                "largest": list(max(heights, key=min)),
                "different": len(set(heights)),
                "modes": self.modes,
            },
            "gray": sum(int(part.gray.sum()) for part in self.parts),
            "blank": sum(int(part.blank.sum()) for part in self.parts),
            "damaged": list(self.damaged),
            "copies": {
                kind: {
                    "exact": sum(pair.exact for pair in pairs),
                    "near": sum(not pair.exact for pair in pairs),
                    "pairs": [self._pair(pair) for pair in pairs[:MOST_LISTED]],
                }
                for kind, pairs in copies.items()
            },
            "notes": list(self.notes),
            "findings": self.findings(),
            "suggestions": self.suggestions(),
        }

    def _pair(self, pair: Pair) -> dict[str, Any]:
        return {
            "first": self.name(*pair.first),
            "second": self.name(*pair.second),
            "parts": [pair.first.part, pair.second.part],
            "exact": pair.exact,
            "similarity": round(pair.similarity, 4),
        }


def check_health(
    splits: SourceSplits,
    source: str,
    similarity: float = 0.995,
    seen: Callable[[int], None] = lambda count: None,
) -> Health:
    """Look at all images of a source, and for copies among them.

    Args:
        splits: the three parts, of one shape.
        source: as a recipe names it.
        similarity: see `find_copies`.
        seen: called with the number of images after each batch.
    """
    parts = tuple(survey(splits, seen))
    left_out = left_out_note(splits.damaged)
    notes = tuple(note for note in splits.notes if note != left_out)
    copies = find_copies(parts, similarity)
    return Health(source, splits.class_names, parts, copies, splits.damaged, notes)


def _damaged_sentence(damaged: Sequence[str]) -> str:
    if not damaged:
        return ""
    return f"pictures that cannot be read: {len(damaged)}; repair or remove them"


def _kinds(pairs: Sequence[Pair]) -> str:
    exact = sum(pair.exact for pair in pairs)
    return f"{exact} exact, {len(pairs) - exact} near"


def _leak_sentence(leaks: Sequence[Pair], parts: Sequence[SurveyedPart]) -> str:
    if not leaks:
        return ""
    sizes = {part.name: len(part) for part in parts}
    held = Counter(name for name, _ in {pair.second for pair in leaks})
    counted = ", ".join(f"{held[name]} of {sizes[name]} {name}" for name in sizes if held[name])
    return (
        f"images that are, or look like, images in another part: {counted} ({_kinds(leaks)}); "
        "accuracies would be too high: remove the copies, or keep them in one part"
    )


def _conflict_sentence(conflicts: Sequence[Pair]) -> str:
    if not conflicts:
        return ""
    return (
        f"copies with another label than the image that they are like: {len(conflicts)} "
        f"({_kinds(conflicts)}); likely label errors: correct one of the two"
    )


def _within_sentence(within: Sequence[Pair]) -> str:
    if not within:
        return ""
    return (
        f"images that repeat another of their class and part: {len(within)} ({_kinds(within)}); "
        "they teach little, and a cut may put them into two parts"
    )


def _missing_sentence(counts: dict[str, list[int]], names: Sequence[str]) -> str:
    found = [
        f"{name!r} has no {part} images"
        for part in ("train", "test")
        for name, count in zip(names, counts[part], strict=True)
        if not count
    ]
    return f"{found[0]}{f', and {len(found) - 1} more' if len(found) > 1 else ''}" if found else ""


def _gray_sentence(parts: Sequence[SurveyedPart]) -> str:
    if parts[0].images.shape[1] != 3:
        return ""
    gray, total = sum(int(part.gray.sum()) for part in parts), sum(map(len, parts))
    if not gray or gray == total:
        return ""
    return f"gray images among coloured ones: {gray} of {total}; see that no class is mostly gray"


def _long_sentence(stored: Sequence[Stored]) -> str:
    count = sum(max(one[1:3]) > _LONG * min(one[1:3]) for one in stored)
    if not count:
        return ""
    return (
        f"images more than twice as long as wide: {count}; only their central square is used: cut "
        "them to what matters"
    )


def _size_suggestion(stored: Sequence[Stored]) -> str:
    """A size where images differ, or are larger than is usual."""
    shapes = {one[1:3] for one in stored}
    shorter = [min(one[1:3]) for one in stored]
    least = min(shorter)
    if len(shapes) == 1 and least == max(next(iter(shapes))) <= _USUAL_SIDES[0]:
        return ""
    side = next((side for side in _USUAL_SIDES if median(shorter) >= side), max(4, least))
    small = sum(one < side for one in shorter)
    below = f" (smaller images: {small})" if small else ""
    return (
        f"data.size = {side}{below}: shorter sides are from {least} to {max(shorter)} pixels, half "
        f"of them at least {median(shorter):g}; 32 and 64 are usual, and more costs more"
    )
