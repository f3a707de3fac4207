"""Voted epochs on the disk, until all are there: for labels that are larger than memory may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from distill.store.tensors import from_arrays, load_tensors, save_tensors, to_arrays
from synth.augment import MixKind
from synth.augment.mix import Mix
from synth.committee.relabel import LabelledEpoch

_LOGITS = "logits"


def _none_of(count: int) -> np.ndarray:
    """Logits [count, 0], which are elsewhere."""
    return np.empty((count, 0), np.float16)


@dataclass(frozen=True, eq=False)
class VotedEpoch:
    """A `LabelledEpoch` as plain arrays.

    Attributes:
        tensors: its ids, views and logits.
        mixes: (kind, {partners, parameters}) of each batch, or nothing.
        asked: views that went through the teachers.
    """

    tensors: dict[str, np.ndarray]
    mixes: list[tuple[MixKind, dict[str, np.ndarray]]]
    asked: int

    @staticmethod
    def packed(epoch: LabelledEpoch, asked: int) -> VotedEpoch:
        """An epoch of tensors as arrays."""
        tensors = {"ids": epoch.ids, "views": epoch.views, _LOGITS: epoch.logits}
        mixes = [
            (mix.kind, to_arrays({"partners": mix.partners, "parameters": mix.parameters}))
            for mix in epoch.mixes
        ]
        return VotedEpoch(to_arrays(tensors), mixes, asked)

    def unpacked(self) -> LabelledEpoch:
        """The epoch as tensors."""
        mixes = [Mix(kind, **from_arrays(arrays)) for kind, arrays in self.mixes]
        return LabelledEpoch(**from_arrays(self.tensors), mixes=mixes)

    def without_logits(self) -> VotedEpoch:
        """The epoch with logits [n, 0]."""
        none = _none_of(len(self.tensors["ids"]))
        return replace(self, tensors={**self.tensors, _LOGITS: none})


class SpilledEpochs:
    """Epochs in files of a folder; an interrupted stage finds those that were voted before.

    Args:
        folder: of the stage's checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, number: int, epoch: VotedEpoch) -> None:
        """Write an epoch."""
        tensors = from_arrays(epoch.tensors)
        for index, (_, arrays) in enumerate(epoch.mixes):
            parts = from_arrays(arrays).items()
            tensors |= {f"{index}/{name}": tensor for name, tensor in parts}
        header = {"asked": epoch.asked, "mixes": [kind for kind, _ in epoch.mixes]}
        save_tensors(self.path(number), tensors, header)

    def find(self, number: int) -> VotedEpoch | None:
        """An epoch that was written before, without its logits; None if there is no whole one."""
        found = load_tensors(self.path(number), leave_out=(_LOGITS,))
        if found is None:
            return None
        arrays, header = to_arrays(found[0]), found[1]
        arrays[_LOGITS] = _none_of(len(arrays["ids"]))
        mixes = [
            (kind, {name: arrays.pop(f"{index}/{name}") for name in ("partners", "parameters")})
            for index, kind in enumerate(header["mixes"])
        ]
        return VotedEpoch(arrays, mixes, header["asked"])

    def path(self, number: int) -> Path:
        """The file of an epoch."""
        return self._folder / f"epoch-{number:05d}.safetensors"


@dataclass(frozen=True, eq=False)
class SpilledLogits:
    """The logits [e, n, k] of all epochs of a spool, see `synth.committee.relabel.VotedLogits`.

    Attributes:
        files: of the epochs.
        shape: [e, n, k].
    """

    files: Sequence[Path]
    shape: torch.Size

    def __getitem__(self, places: Any, /) -> Tensor:
        row, place = places if isinstance(places, tuple) else (places, slice(None))
        with safe_open(self.files[row], framework="pt") as file:
            found: Tensor = file.get_slice(_LOGITS)[place]
        return found
