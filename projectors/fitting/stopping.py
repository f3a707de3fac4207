"""Early stopping of a fit, by its fidelity on held-out images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from projectors.errors import ProjectorError
from projectors.fitting.fidelity import Fidelity

CRITERIA = ("kl", "agreement", "accuracy")


@dataclass(frozen=True)
class EarlyStopping:
    """A stopping rule.

    Attributes:
        criterion: "kl" (smaller is better), "agreement" or "accuracy", see `Fidelity`.
        patience: checks without a better value after which the fit stops; 0 never stops it.
    """

    criterion: str = "kl"
    patience: int = 0

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise ProjectorError(
                f"criterion is {self.criterion!r}; write one of {', '.join(CRITERIA)}"
            )

    def score(self, fidelity: Fidelity) -> float:
        """The criterion, so that larger is better."""
        return -fidelity.kl if self.criterion == "kl" else float(getattr(fidelity, self.criterion))


@dataclass(frozen=True)
class BestCheck:
    """The best check of a fit so far.

    Attributes:
        step: steps that had been taken, 0 before any.
        fidelity: what was measured then; None before any check.
        weights: the fitted numbers then.
        stale: checks since then.
    """

    step: int = 0
    fidelity: Fidelity | None = None
    weights: Mapping[str, Tensor] | None = None
    stale: int = 0

    def after(
        self, rule: EarlyStopping, step: int, fidelity: Fidelity, weights: Mapping[str, Tensor]
    ) -> "BestCheck":
        """The best check after one more."""
        if self.fidelity is None or rule.score(fidelity) > rule.score(self.fidelity):
            return BestCheck(step, fidelity, weights)
        return replace(self, stale=self.stale + 1)

    def ends(self, rule: EarlyStopping) -> bool:
        """Whether the rule stops the fit here."""
        return 0 < rule.patience <= self.stale
