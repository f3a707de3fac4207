"""The fit of a projector with checks on held-out images, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from torch import Tensor

from distill.errors import InterruptedRunError
from distill.run.context import Context
from projectors import BestCheck, EarlyStopping, Fidelity, FitState, FitStep

_BEST = "best."


@dataclass
class Fit:
    """A fit with checks on held-out images.

    Attributes:
        state: of the fit.
        steps: takes them, one at a time.
        measure: the fidelity of the projector as it is, on held-out images.
        rule: which check is best, and when to stop.
        check_every: steps between two measurements; the last step is always measured.
        best: the best so far.
    """

    state: FitState
    steps: Iterator[FitStep]
    measure: Callable[[], Fidelity]
    rule: EarlyStopping
    check_every: int
    best: BestCheck = field(default_factory=BestCheck)

    @property
    def due(self) -> bool:
        """Whether it is time to measure."""
        taken = self.state.step
        return taken % self.check_every == 0 or taken == self.state.settings.steps


def run_fit(context: Context, stage: str, fit: Fit) -> None:
    """Take the steps, and restore the best weights.

    A checkpoint is saved after every measurement and on interruption.
    """
    checkpoint, state = context.checkpoint(stage), fit.state
    saved = checkpoint.load()
    if saved is not None:
        fit.best = _restore(state, *saved)
    progress = context.progress.task(stage, state.settings.steps, state.step)
    with progress as advance:
        try:
            while not fit.best.ends(fit.rule) and (step := next(fit.steps, None)) is not None:
                if step.index % 10 == 0:
                    checkpoint.log({"step": step.index, "loss": step.loss})
                if fit.due:
                    fidelity = fit.measure()
                    fit.best = fit.best.after(fit.rule, state.step, fidelity, state.weights())
                    checkpoint.log({"step": state.step, **asdict(fidelity)})
                    checkpoint.save(*_pack(fit))
                advance(f"loss {step.loss:.4f}")
                context.stop.check()
        except InterruptedRunError:
            checkpoint.save(*_pack(fit))
            raise
    if fit.best.weights is not None:
        state.set_weights(fit.best.weights)


def _pack(fit: Fit) -> tuple[dict[str, Tensor], dict[str, object]]:
    tensors = fit.state.tensors()
    tensors.update({f"{_BEST}{name}": value for name, value in (fit.best.weights or {}).items()})
    fidelity = None if fit.best.fidelity is None else asdict(fit.best.fidelity)
    return tensors, {"step": fit.best.step, "stale": fit.best.stale, "fidelity": fidelity}


def _restore(state: FitState, tensors: dict[str, Tensor], header: dict) -> BestCheck:
    state.restore(tensors)
    if header["fidelity"] is None:
        return BestCheck()
    weights = {name: tensors[f"{_BEST}{name}"] for name in state.fitted}
    return BestCheck(header["step"], Fidelity(**header["fidelity"]), weights, header["stale"])
