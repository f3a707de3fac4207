"""Weights of the members of a committee in its vote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

VoteRule = Literal["prior", "measured", "equal", "random", "similarity"]

RULES: tuple[VoteRule, ...] = ("prior", "measured", "equal", "random", "similarity")


def prior_weights(priors: Sequence[float], temperature: float) -> Tensor:
    """Weights [m] softmax(p / temperature) with p = 100 * prior.

    CV-DD has p in percent: with fractions, every committee would vote nearly equally.

    Args:
        priors: how good each member is, a fraction in [0, 1].
        temperature: tau > 0; CV-DD uses 5 for recovery and 10 for labels.
    """
    percents = 100 * torch.tensor(list(priors), dtype=torch.float64)
    return torch.softmax(percents / temperature, 0).float()


def random_weights(count: int, generator: Generator) -> Tensor:
    """Weights [count] drawn uniformly in [0, 1) and divided by their sum, as CV-DD's "random"."""
    drawn = torch.rand(count, generator=generator, dtype=torch.float64)
    return (drawn / drawn.sum()).float()


def similarity_weights(similarities: Sequence[float], power: float) -> Tensor:
    """Weights [m] similarity^power, divided by their sum; negative similarities count as zero.

    Source: Borup et al. 2023 (DistillWeighted; power infinity is DistillNearest, 0 is equal).

    Args:
        similarities: of each member's task to the task at hand, see `synth.committee.similarity`.
        power: at least 0; infinity gives the most similar member all the weight.
    """
    values = torch.tensor(list(similarities), dtype=torch.float64).clamp(min=0)
    if math.isinf(power):
        values = torch.nn.functional.one_hot(values.argmax(), len(values)).double()
    elif float(values.max()) == 0:
        # No member's features resemble the task: weigh all equally.
        values = torch.ones_like(values)
    else:
        # Relative to the largest, so that a large power does not underflow to 0 / 0.
        values = (values / values.max()) ** power
    return (values / values.sum()).float()


@dataclass(frozen=True)
class VoteWeighting:
    """A weighting rule and the members' scores, which give the weights of any subset of them.

    Attributes:
        rule: "prior" and "measured" are the softmax of CV-DD and differ in where the scores come
            from; "equal", "random" and "similarity".
        scores: one per member: a prior, a fraction in [0, 1], or a similarity.
        power: of "similarity".
    """

    rule: VoteRule
    scores: tuple[float, ...]
    power: float = 1.0

    def weights(
        self,
        temperature: float,
        generator: Generator | None = None,
        members: Sequence[int] | None = None,
    ) -> Tensor:
        """Weights [m] of `members`, summing to 1.

        Args:
            temperature: tau of the softmax rules.
            generator: draws the weights of the rule "random".
            members: indices of those that vote; None for all.

        Raises:
            ValueError: for no members, an unknown rule, or "random" without a generator.
        """
        chosen = range(len(self.scores)) if members is None else members
        scores = [self.scores[member] for member in chosen]
        return vote_weights(self.rule, scores, temperature, power=self.power, generator=generator)


def vote_weights(
    rule: VoteRule,
    scores: Sequence[float],
    temperature: float,
    *,
    power: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Weights [m] of the members by one of the rules, summing to 1.

    Args:
        rule: one of RULES.
        scores: one per member: a prior or a similarity; "equal" and "random" read their number.
        temperature: tau of "prior" and "measured".
        power: of "similarity".
        generator: of "random".

    Raises:
        ValueError: for no members, an unknown rule, or "random" without a generator.
    """
    if not scores:
        raise ValueError("got no members; a committee needs at least one")
    if rule in ("prior", "measured"):
        return prior_weights(scores, temperature)
    if rule == "equal":
        return torch.full((len(scores),), 1 / len(scores))
    if rule == "similarity":
        return similarity_weights(scores, power)
    if rule == "random":
        if generator is None:
            raise ValueError("the vote random draws its weights; give it a generator")
        return random_weights(len(scores), generator)
    raise ValueError(f"vote is {rule!r}; choose one of {', '.join(RULES)}")
