"""Checkpoints of trajectory matching, kept in step with its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.run.context import Context
from distill.store.tensors import load_tensors, save_tensors
from synth.matching.outer_loop import OuterStep
from synth.matching.state import MatchState, pack_state, unpack_state

_STAGE = "match"

_CHECKPOINT = "state.safetensors"


@dataclass
class Recorder:
    """Keeps checkpoints and metrics in step: a row is written with the state that it led to."""

    context: Context

    def __post_init__(self) -> None:
        self._path = self.context.checkpoint(_STAGE) / _CHECKPOINT
        self._every = self.context.recipe.matching()[1].checkpoint_every
        self._rows: list[dict[str, Any]] = []
        self._state: MatchState | None = None

    def load(self) -> MatchState | None:
        """The last checkpoint; metrics after it are dropped."""
        found = load_tensors(self._path)
        state = None if found is None else unpack_state(*found, device=self.context.device)
        self.context.run.keep_metrics(_STAGE, below=0 if state is None else state.step)
        return state

    def add(self, state: MatchState, steps: Sequence[OuterStep]) -> None:
        """Take note of steps and of the state after them; some states go to disk."""
        self._state = state
        self._rows += [
            {
                "stage": _STAGE,
                "step": step.index,
                "distance": step.distance,
                "student_lr": step.student_lr,
                "applied": step.applied,
            }
            for step in steps
        ]
        if state.step % self._every == 0:
            self.flush()

    def flush(self) -> None:
        """Write state and rows."""
        if self._state is not None and self._rows:
            save_tensors(self._path, *pack_state(self._state))
            self.context.run.append_metrics(self._rows)
            self._rows = []
