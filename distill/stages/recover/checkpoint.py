"""Checkpoints of recovery, kept in step with its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distill.recipes.tables.recover import RecoverTable
from distill.run.artefacts import RECOVER_STAGE
from distill.run.context import Context
from distill.stages.recover.disk import DiskImages
from distill.store.tensors import load_tensors, save_tensors
from synth.images import Images, gather
from synth.recovery import RecoverState, RecoverStep
from synth.updates import Moments

_CHECKPOINT = "state.safetensors"

# Losses change slowly: every tenth step and the last are enough for a curve.
_LOG_EVERY = 10


@dataclass(frozen=True)
class RecoverProgress:
    """A set while it is recovered.

    Attributes:
        images: [n, c, h, w], those of finished batches as recovered, the others as they start;
            in memory, or `Waiting` on the disk.
        batch: number of the batch that is next, or under way.
        inner: how far it is; None before its first step.
    """

    images: Images
    batch: int
    inner: RecoverState | None = None

    def steps(self, iterations: int) -> int:
        """Steps taken so far, where each batch takes `iterations`."""
        return self.batch * iterations + (self.inner.step if self.inner is not None else 0)

    def with_batch(self, places: Tensor, images: Tensor) -> RecoverProgress:
        """The next batch is finished: its images [b, c, h, w] belong at `places` [b].

        Where images wait on the disk, those of the batch must be in its file.
        """
        if isinstance(self.images, DiskImages):
            return RecoverProgress(replace(self.images, done=self.batch + 1), self.batch + 1)
        found = gather(self.images).clone()
        found[places] = images
        return RecoverProgress(found, self.batch + 1)


class Recorder:
    """Writes states and metrics together: a row goes to disk with the state that it led to."""

    def __init__(self, context: Context, table: RecoverTable) -> None:
        self._context, self._table = context, table
        self._path = context.checkpoint(RECOVER_STAGE) / _CHECKPOINT
        self._rows: list[dict[str, Any]] = []
        self._state: RecoverProgress | None = None

    def load(self, waiting: DiskImages | None) -> RecoverProgress | None:
        """The last checkpoint; metrics after it are dropped.

        Args:
            waiting: the images of a large set, which no checkpoint holds.
        """
        found = load_tensors(self._path)
        if found is not None:
            self._state = _unpack(*found, device=self._context.device, waiting=waiting)
        done = 0 if self._state is None else self._state.steps(self._table.iterations)
        self._context.run.keep_metrics(RECOVER_STAGE, below=done)
        return self._state

    def begin(
        self, state: RecoverProgress, call: int, members: Sequence[str], weights: Sequence[float]
    ) -> None:
        """Take note of a batch's members before its first step."""
        self._rows.append(
            {
                "stage": RECOVER_STAGE,
                "step": state.steps(self._table.iterations),
                "call": call,
                "members": list(members),
                "weights": list(weights),
            }
        )

    def add(self, state: RecoverProgress, step: RecoverStep) -> None:
        """Take note of a step; every `checkpoint_every` steps it goes to disk."""
        self._state = state
        steps = state.steps(self._table.iterations)
        self._note(step, steps - 1)
        if steps % self._table.checkpoint_every == 0:
            self.flush()

    def add_batch(self, state: RecoverProgress, steps: Sequence[RecoverStep]) -> None:
        """Take note of a whole batch, or of its rest, that led to `state`; it goes to disk."""
        self._state = state
        first = state.steps(self._table.iterations) - self._table.iterations
        for step in steps:
            self._note(step, first + step.index)
        self.flush()

    def _note(self, step: RecoverStep, number: int) -> None:
        if step.index % _LOG_EVERY == 0 or step.index == self._table.iterations - 1:
            self._rows.append(
                {
                    "stage": RECOVER_STAGE,
                    "step": number,
                    "cross_entropy": step.cross_entropy,
                    "statistics": step.statistics,
                }
            )

    def flush(self) -> None:
        """Write state and rows."""
        if self._state is not None:
            save_tensors(self._path, *_pack(self._state))
            self._context.run.append_metrics(self._rows)
            self._rows = []


def _pack(state: RecoverProgress) -> tuple[dict[str, Tensor], dict[str, int]]:
    images = state.images
    tensors = {} if isinstance(images, DiskImages) else {"all": gather(images)}
    if state.inner is None:
        return tensors, {"batch": state.batch, "step": 0}
    tensors["images"] = state.inner.images
    tensors["mean"], tensors["square"] = state.inner.moments.mean, state.inner.moments.square
    return tensors, {"batch": state.batch, "step": state.inner.step}


def _unpack(
    tensors: dict[str, Tensor],
    header: dict[str, int],
    *,
    device: torch.device,
    waiting: DiskImages | None,
) -> RecoverProgress:
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    batch = header["batch"]
    images: Images = placed["all"] if waiting is None else replace(waiting, done=batch)
    if not header["step"]:
        return RecoverProgress(images, batch)
    moments = Moments(placed["mean"], placed["square"])
    return RecoverProgress(images, batch, RecoverState(header["step"], placed["images"], moments))
