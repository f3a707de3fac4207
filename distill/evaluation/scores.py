"""DD-Ranking's two scores, on accuracies that are fractions.

The published formulas lie in [0, 1] for fractions. The package of the same name feeds them with
percent, where exp(alpha) is either nothing or astronomic; its numbers cannot be compared with ours.
"""

from __future__ import annotations

import math
from typing import Any


def label_robust_score(
    whole_hard: float,
    synthetic_hard: float,
    synthetic_any: float,
    random_any: float,
    weight: float = 0.5,
) -> dict[str, float]:
    """How much of a result is the images' and not the labels'. Source: DD-Ranking, LRS.

    Args:
        whole_hard: accuracy of students on all real images with hard labels.
        synthetic_hard: on the synthetic images with hard labels.
        synthetic_any: on the synthetic images with the labels that are judged.
        random_any: on random real images with the same kind of labels.
        weight: of the improvement over random against the hard labels' gap, in [0, 1].

    Returns:
        `gap` (HLR, the smaller the better), `gain` (IOR, the larger the better) and `score` in
        [0, 1].
    """
    gap, gain = whole_hard - synthetic_hard, synthetic_any - random_any
    return {"gap": gap, "gain": gain, "score": _unit(weight * gain - (1 - weight) * gap)}


def augmentation_robust_score(
    synthetic: float,
    random: float,
    synthetic_plain: float,
    random_plain: float,
    weight: float = 0.5,
) -> dict[str, float]:
    """How much of a result stays without augmentation. Source: DD-Ranking, ARS.

    Args:
        synthetic: accuracy of students on the synthetic images, augmented.
        random: on random real images, augmented.
        synthetic_plain: as `synthetic`, without augmentation.
        random_plain: as `random`, without augmentation.
        weight: of the augmented gain against the other, in [0, 1].

    Returns:
        `gain` with and `plain_gain` without augmentation, and `score` in [0, 1].
    """
    gain, plain = synthetic - random, synthetic_plain - random_plain
    return {"gain": gain, "plain_gain": plain, "score": _unit(weight * gain + (1 - weight) * plain)}


def _unit(value: float) -> float:
    """[-1, 1] to [0, 1] by (e^x - e^-1) / (e - e^-1)."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def score_students(augmented: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Both scores of every student and label source, where their parts were measured.

    Random images are those with the same labels where these can label them, else, for the
    label-robust score, the best of the random controls: the harder comparison.

    Args:
        augmented: `summarise` of the augmented students.
        plain: `summarise` of the students without augmentation.

    Returns:
        {student: {labels: {"label_robust": {...}, "augmentation_robust": {...}}}}.
    """
    scores: dict[str, Any] = {}
    for student, sources in augmented["students"].items():
        random = _means(augmented, student)
        whole = augmented["controls"]["whole"].get(student)
        random_plain = _means(plain, student)
        for labels, stats in sources.items():
            entry = scores.setdefault(student, {}).setdefault(labels, {})
            if "hard" in sources and whole is not None:
                entry["label_robust"] = label_robust_score(
                    whole["hard"]["mean"],
                    sources["hard"]["mean"],
                    stats["mean"],
                    random.get(labels, max(random.values())),
                )
            unaugmented = plain["students"].get(student, {}).get(labels)
            if unaugmented is not None:
                pair = labels if labels in random_plain else "hard"
                entry["augmentation_robust"] = augmentation_robust_score(
                    stats["mean"], random[pair], unaugmented["mean"], random_plain[pair]
                )
    return scores


def _means(summary: dict[str, Any], student: str) -> dict[str, float]:
    """Mean accuracy on random images by label source."""
    rows = summary["controls"]["random"].get(student, {})
    return {labels: stats["mean"] for labels, stats in rows.items()}
