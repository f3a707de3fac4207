"""Voted epochs as parts of a checkpoint: they stay on the disk when they exceed memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from distill.run.checkpoints import Saved
from distill.store.tensors import Arrays, to_arrays
from synth.augment.mix import Mix
from synth.committee.relabel import LabelledEpoch

LOGITS = "logits"


def pack_epoch(epoch: LabelledEpoch, queried: int) -> tuple[Arrays, dict[str, Any]]:
    """An epoch, and how many of its views the teachers labelled, as arrays and plain values."""
    tensors = {"ids": epoch.ids, "views": epoch.views, LOGITS: epoch.logits}
    for index, mix in enumerate(epoch.mixes):
        tensors[f"{index}/partners"] = mix.partners
        tensors[f"{index}/parameters"] = mix.parameters
    return to_arrays(tensors), {"asked": queried, "mixes": [mix.kind for mix in epoch.mixes]}


def unpack_epoch(saved: Saved) -> LabelledEpoch:
    """The epoch of `pack_epoch`; its logits are [n, 0] if they were not read."""
    tensors, header = saved
    mixes = [
        Mix(kind, tensors[f"{index}/partners"], tensors[f"{index}/parameters"])
        for index, kind in enumerate(header["mixes"])
    ]
    ids = tensors["ids"]
    logits = tensors.get(LOGITS, torch.empty((len(ids), 0), dtype=torch.float16))
    return LabelledEpoch(ids=ids, views=tensors["views"], logits=logits, mixes=mixes)


@dataclass(frozen=True, eq=False)
class SpilledLogits:
    """The logits [e, n, k] of all epochs on the disk, see `synth.committee.relabel.VotedLogits`.

    Attributes:
        files: of the epochs.
        shape: [e, n, k].
    """

    files: Sequence[Path]
    shape: torch.Size

    def __getitem__(self, places: Any, /) -> Tensor:
        row, place = places if isinstance(places, tuple) else (places, slice(None))
        with safe_open(self.files[row], framework="pt") as file:
            logits: Tensor = file.get_slice(LOGITS)[place]
        return logits
