"""Which codec: by the bytes that it may take, or by the accuracy that it may cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distill.errors import WorkError
from distill.recipes.build import build_codec
from distill.recipes.specs import parse_codec
from distill.sets.views import Size, seed_gives
from projectors.codecs import CodecError, Labels, LabelSpec
from synth.committee.relabel import StoredVotes

# From the most bytes to the fewest, by a factor of one and a half to two a step. Labels are made
# coarser before views are given up: a coarse label of a new view teaches more than a fine one of a
# view that was seen before.
LADDER = (
    "dense:dtype=float16",
    "seed+dense:dtype=float16",
    "seed+roots:step=0.01",
    "seed+roots:step=0.02",
    "seed+roots:step=0.05",
    "seed+roots:step=0.1",
    "seed+pruned:ratio=0.5+roots:step=0.1",
    "seed+pruned:ratio=0.75+roots:step=0.1",
    "seed+pruned:ratio=0.75+roots:step=0.2",
    "seed+pruned:ratio=0.9+roots:step=0.2",
    "seed+pruned:ratio=0.95+roots:step=0.2",
    "seed+pruned:ratio=0.975+roots:step=0.2",
    "seed+pruned:ratio=0.99+roots:step=0.2",
)


def possible(candidates: Sequence[str], votes: StoredVotes, seed: int, size: Size) -> list[str]:
    """The candidates that these labels fit; views are stored where the seed does not give them."""
    spec = Labels(votes.whole, votes.temperature).spec
    return fitting(candidates, spec, votes.batch_size, seeded=seed_gives(votes, seed, size))


def fitting(
    candidates: Sequence[str], labels: LabelSpec, batch_size: int, *, seeded: bool
) -> list[str]:
    """The candidates that fit labels of this shape; views are stored where no seed gives them."""
    texts = []
    for candidate in candidates:
        text = candidate if seeded else candidate.removeprefix("seed+")
        try:
            build_codec(parse_codec(text), batch_size).body_bytes(labels)
        except CodecError:
            continue
        if text not in texts:
            texts.append(text)
    return texts


def choose_by_bytes(
    candidates: Sequence[str], size: Callable[[str], int], target: int
) -> tuple[str, int]:
    """The first candidate that takes at most `target` bytes, and its bytes.

    Args:
        candidates: codec specs, the best first.
        size: bytes of the encoded labels and views of a spec.
        target: bytes, at least 1.

    Raises:
        WorkError: if every candidate takes more.
    """
    least = None
    for spec in candidates:
        needed = size(spec)
        if needed <= target:
            return spec, needed
        least = needed if least is None else min(least, needed)
    raise WorkError(
        f"--target-bytes {target}, but the smallest of {len(candidates)} codecs takes {least}; "
        "allow more bytes, or name a codec"
    )


def choose_by_loss(
    candidates: Sequence[str], accuracy: Callable[[str], float], reference: float, limit: float
) -> tuple[str, float]:
    """The last candidate that costs at most `limit` accuracy, and what it costs.

    Candidates are bisected, as each has to be evaluated with students: a candidate is taken to cost
    at least as much as those before it.

    Args:
        candidates: codec specs, from the most bytes to the fewest.
        accuracy: of students on held-out real images, a fraction, for a spec.
        reference: the same with the labels in full.
        limit: accuracy that may be lost, a fraction.

    Raises:
        WorkError: if even the first candidate costs more.
    """
    low, high = -1, len(candidates)
    lost: dict[int, float] = {}
    while high - low > 1:
        middle = (low + high) // 2
        lost[middle] = reference - accuracy(candidates[middle])
        if lost[middle] <= limit:
            low = middle
        else:
            high = middle
    if low < 0:
        raise WorkError(
            f"--max-loss {limit:g}, but {candidates[0]} already costs {lost[0]:.4f}, which seeds "
            "alone may do; allow more, or train more seeds"
        )
    return candidates[low], lost[low]
