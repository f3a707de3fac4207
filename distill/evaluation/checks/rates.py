"""How well scores tell members from others, with what the numbers of images allow to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.special import betaincinv, stdtrit
from torch import Tensor

CONFIDENCE = 0.95

# False-positive rates at which attacks are reported, after Carlini et al. 2022.
RATES = (0.001, 0.01)


@dataclass(frozen=True)
class Rate:
    """True positives of an attack that may accuse so many non-members.

    Attributes:
        allowed: the false-positive rate asked for.
        false_positives: non-members that are taken for members, at most that share of them; of
            several scores of each, their mean number.
        false_interval: where the false-positive rate lies with 95 % confidence.
        true_rate: share of the members that are found; None where the share allows less than one
            non-member, so that nothing can be said.
        true_interval: where that share lies.
    """

    allowed: float
    false_positives: float
    false_interval: tuple[float, float]
    true_rate: float | None
    true_interval: tuple[float, float] | None

    @property
    def above_chance(self) -> bool:
        """Whether members are found more often than others, beyond both intervals."""
        return self.true_interval is not None and self.true_interval[0] > self.false_interval[1]


@dataclass(frozen=True)
class Attack:
    """The result of an attack.

    Attributes:
        auc: chance that a member has a larger score than a non-member; 0.5 is chance.
        auc_interval: over images, for these students.
        rates: at `RATES`.
    """

    auc: float
    auc_interval: tuple[float, float]
    rates: tuple[Rate, ...]

    @property
    def evidence(self) -> list[str]:
        """By what the attack is better than chance: its area, or rates; empty if it is not."""
        area = ["area"] if self.auc_interval[0] > 0.5 else []
        return area + [f"rate at {one.allowed:.1%}" for one in self.rates if one.above_chance]

    @property
    def above_chance(self) -> bool:
        """Whether the attack is better than chance by its area, or at a low rate."""
        return bool(self.evidence)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "above_chance": self.above_chance}


def judge_attack(
    members: Tensor,
    others: Tensor,
    rates: Sequence[float] = RATES,
    repeats: tuple[float, float] = (1, 1),
) -> Attack:
    """Area under the curve (DeLong's interval), and true positives at low false-positive rates.

    Args:
        members: scores [m], m >= 2; larger for "member".
        others: scores [n] of non-members, n >= 2.
        rates: false-positive rates in (0, 1).
        repeats: how often each image is among the members, and among the others. Scores of one
            image are not independent, so intervals are those of one score for each.
    """
    below, above = _shares(members, others), 1 - _shares(others, members)
    auc = float(below.mean())
    counts = len(below) / repeats[0], len(above) / repeats[1]
    error = float((below.var() / counts[0] + above.var() / counts[1]).sqrt())
    half = float(stdtrit(max(1.0, min(counts) - 1), (1 + CONFIDENCE) / 2)) * error
    return Attack(
        auc,
        (max(0.0, auc - half), min(1.0, auc + half)),
        tuple(_rate(members, others, rate, repeats) for rate in rates),
    )


def _shares(scores: Tensor, others: Tensor) -> Tensor:
    """For each score the share of others that are smaller, equal ones by half; float64."""
    ordered = others.double().sort().values
    found = scores.double()
    low = torch.searchsorted(ordered, found)
    high = torch.searchsorted(ordered, found, right=True)
    return (low + high).double() / (2 * len(ordered))


def _rate(members: Tensor, others: Tensor, allowed: float, repeats: tuple[float, float]) -> Rate:
    images = len(others) / repeats[1]
    if allowed * images + 1e-9 < 1:
        return Rate(allowed, 0.0, interval_of(0, images), None, None)
    threshold = others.sort(descending=True).values[int(allowed * len(others) + 1e-9)]
    accused = float((others > threshold).sum()) / repeats[1]
    found = float((members > threshold).sum()) / repeats[0]
    total = len(members) / repeats[0]
    return Rate(
        allowed,
        accused,
        interval_of(accused, images),
        found / total,
        interval_of(found, total),
    )


def interval_of(count: float, total: float) -> tuple[float, float]:
    """Where a share lies with 95 % confidence, by Clopper and Pearson.

    Args:
        count: of successes.
        total: of trials, above 0; both may be fractions, as effective numbers are.
    """
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count <= 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count >= total else float(betaincinv(count + 1, total - count, 1 - tail))
    return low, high
