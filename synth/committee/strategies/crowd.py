"""Soft labels from teachers' hard votes, as crowds of annotators are aggregated.

Tasks are views, workers are teachers; each votes for its most probable class. Source: Wu et al.
2023 (soft labels from crowds), which recommends the plain mean of several methods; crowd-kit for
the methods that it implements.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

_CROWD_KIT = {"glad": "GLAD", "mace": "MACE"}

CROWD_METHODS = ("standard", "softmax", "dawid-skene", "wawa", "zero-based-skill", *_CROWD_KIT)

_MIN_PROBABILITY = 1e-8


def crowd_posterior(method: str, votes: Tensor, classes: int) -> Tensor:
    """Probabilities [n, k] that a method gives to the classes of n tasks.

    - "standard": the fraction of workers that voted for a class.
    - "softmax": softmax of the numbers of votes.
    - "dawid-skene": expectation maximisation over a confusion matrix for each worker.
    - "wawa": a worker's weight is how often it agrees with the majority.
    - "zero-based-skill": the same, iterated: the agreement is with the weighted result itself.
    - "glad", "mace": as crowd-kit implements them.

    Args:
        method: one of CROWD_METHODS.
        votes: [m, n] int64, the class that each of m workers votes for.
        classes: k.

    Raises:
        ValueError: for an unknown method.
        ImportError: if the method needs crowd-kit and it is not installed.
    """
    counts = functional.one_hot(votes, classes).sum(dim=0).double()
    methods: dict[str, Callable[[], Tensor]] = {
        "standard": lambda: counts / len(votes),
        "softmax": lambda: torch.softmax(counts, dim=1),
        "dawid-skene": lambda: _dawid_skene(votes, counts),
        "wawa": lambda: _weighted(votes, classes, _agreement(votes, counts)),
        "zero-based-skill": lambda: _zero_based_skill(votes, classes),
        **{name: _from_crowd_kit(kit, votes, classes) for name, kit in _CROWD_KIT.items()},
    }
    if method not in methods:
        raise ValueError(f"crowd method is {method!r}; choose from {', '.join(CROWD_METHODS)}")
    return methods[method]().float()


def aggregate_crowd(methods: Sequence[str], votes: Tensor, classes: int) -> Tensor:
    """The plain mean [n, k] of several methods' posteriors.

    Args:
        methods: at least one of CROWD_METHODS.
        votes: [m, n] int64.
        classes: k.

    Raises:
        ValueError: for an unknown method.
        ImportError: if a method needs crowd-kit and it is not installed.
    """
    posteriors = [crowd_posterior(method, votes, classes) for method in methods]
    return torch.stack(posteriors).mean(dim=0)


def _dawid_skene(
    votes: Tensor, counts: Tensor, rounds: int = 50, tolerance: float = 1e-6
) -> Tensor:
    """Posterior [n, k]: T_i proportional to p(c) prod_w E_w[c, vote_w]. Dawid and Skene 1979."""
    classes = counts.shape[1]
    one_hot_votes = functional.one_hot(votes, classes).double()
    posterior = counts / counts.sum(dim=1, keepdim=True)
    for _ in range(rounds):
        prior = posterior.mean(dim=0)
        errors = torch.einsum("nc,wnv->wcv", posterior, one_hot_votes).clamp_min(_MIN_PROBABILITY)
        errors = errors / errors.sum(dim=2, keepdim=True)
        logs = prior.clamp_min(_MIN_PROBABILITY).log() + torch.einsum(
            "wnv,wcv->nc", one_hot_votes, errors.log()
        )
        updated = torch.softmax(logs, dim=1)
        moved = float((updated - posterior).abs().max())
        posterior = updated
        if moved < tolerance:
            break
    return posterior


def _weighted(votes: Tensor, classes: int, skills: Tensor) -> Tensor:
    """Posterior [n, k]: the share of the workers' skills [m] behind each class."""
    one_hot_votes = functional.one_hot(votes, classes).double()
    weights = torch.einsum("w,wnc->nc", skills.clamp_min(_MIN_PROBABILITY), one_hot_votes)
    return weights / weights.sum(dim=1, keepdim=True)


def _agreement(votes: Tensor, scores: Tensor) -> Tensor:
    """How often each worker [m] votes for the class of the largest score [n, k]."""
    return (votes == scores.argmax(dim=1)).double().mean(dim=1)


def _zero_based_skill(votes: Tensor, classes: int, rounds: int = 100) -> Tensor:
    """Skills start at 1 / k and move by a halving rate towards the agreement; as crowd-kit's."""
    skills, rate = torch.full((len(votes),), 1 / classes, dtype=torch.float64), 1.0
    for index in range(rounds):
        rate *= 0.5 if index % 20 == 0 else 1.0
        skills = skills + rate * (_agreement(votes, _weighted(votes, classes, skills)) - skills)
    return _weighted(votes, classes, skills)


def _from_crowd_kit(kit: str, votes: Tensor, classes: int) -> Callable[[], Tensor]:
    def aggregate() -> Tensor:
        try:
            import pandas
            from crowdkit import aggregation
        except ImportError:
            raise ImportError(
                f"crowd method {kit} needs crowd-kit; install limbeck[crowd]"
            ) from None
        workers, tasks = votes.shape
        table = pandas.DataFrame(
            {
                "task": list(range(tasks)) * workers,
                "worker": [worker for worker in range(workers) for _ in range(tasks)],
                "label": votes.flatten().tolist(),
            }
        )
        options = {"random_state": 0} if kit == "MACE" else {}
        # crowd-kit warns of what newer versions of its own dependencies deprecate.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posterior = getattr(aggregation, kit)(**options).fit_predict_proba(table)
        posterior = posterior.reindex(index=range(tasks), columns=range(classes), fill_value=0.0)
        return torch.tensor(posterior.fillna(0).to_numpy(), dtype=torch.float64)

    return aggregate
