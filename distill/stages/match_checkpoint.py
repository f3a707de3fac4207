"""Checkpoints of trajectory matching, kept in step with its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.context import Context
from distill.stages.tensors import load_tensors, save_tensors
from synth.matching import Learned, MatchState, OuterStep
from synth.updates import Moments

_STAGE = "match"
_CHECKPOINT = "state.safetensors"
_LEARNED = ("images", "labels", "log_lr", "average")


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
                "student_lr": step.lr,
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


def pack_state(state: MatchState) -> tuple[dict[str, Tensor], dict[str, int]]:
    """A state as named tensors and numbers."""
    tensors: dict[str, Tensor] = {}
    for part, learned in (("now", state.now), ("good", state.good)):
        for name in _LEARNED:
            tensors[f"{part}.{name}"] = getattr(learned, name)
        for index, moments in enumerate(learned.moments):
            tensors[f"{part}.mean.{index}"] = moments.mean
            tensors[f"{part}.square.{index}"] = moments.square
    header = {
        "step": state.step,
        "refusals": state.refusals,
        "now": state.now.updates,
        "good": state.good.updates,
    }
    return tensors, header


def unpack_state(
    tensors: dict[str, Tensor], header: dict[str, int], *, device: torch.device
) -> MatchState:
    """The state of `pack_state`, on a device."""

    def learned(part: str) -> Learned:
        images, labels, log_lr, average = (
            tensors[f"{part}.{name}"].to(device) for name in _LEARNED
        )
        first, second, third = (
            Moments(
                tensors[f"{part}.mean.{index}"].to(device),
                tensors[f"{part}.square.{index}"].to(device),
            )
            for index in range(3)
        )
        return Learned(images, labels, log_lr, (first, second, third), average, header[part])

    return MatchState(header["step"], header["refusals"], learned("now"), learned("good"))
