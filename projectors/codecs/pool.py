"""A pruned label pool: a part of the label epochs, drawn from with repetition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from projectors.codecs.errors import CodecError
from projectors.codecs.labels import LabelSpec, Sources, check_choice, check_integer, check_real

_UNITS = ("epoch", "batch", "batch-to-epoch")


@dataclass(frozen=True)
class Pool:
    """Which labels are kept, and which of them each training epoch reads.

    With E label epochs of B batches, int((1 - ratio) * units) units are kept, the first ones, in
    the order of epochs and of batches within them; `units` is E for "epoch" and E * B else. Then
    every training epoch t and batch position j draws with the seed, uniformly and with repetition:

    - "epoch": one kept epoch for all of t; every image is seen once in an epoch.
    - "batch": a kept epoch of batch j itself, so images are seen once but from mixed epochs.
      Needs every batch at least once.
    - "batch-to-epoch": any kept batch, whatever its position (LPLD's improved pool), so an epoch
      may show images twice or not at all. Only whole batches are kept, B = n // batch_size, as
      LPLD drops the last partial one; a last partial position reads the head of a whole batch.

    Training keeps its length E. The count is exact where LPLD's is in floating point (its
    int((1 - 0.9) * 300) is 29, this one 30). Source: Xiao and He 2024 (LPLD); "batch" with fixed
    positions is this package's reading of it.

    Attributes:
        ratio: r in [0, 1), the fraction of units dropped; 0.975 is LPLD's 40x.
        unit: "epoch", "batch" or "batch-to-epoch".
        batch_size: b, views of one batch; "epoch" does not use it.
        seed: of the draws.
    """

    ratio: float
    unit: str = "batch-to-epoch"
    batch_size: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_real("ratio", self.ratio, 0.0, 1.0, closed=True)
        check_choice("unit", self.unit, _UNITS)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("seed", self.seed, 0)

    def kept(self, spec: LabelSpec) -> int:
        """Epochs or batches of the pool, at least 1.

        Raises:
            CodecError: if nothing is left, or too little for every batch to be kept once.
        """
        epochs, batches = spec.epochs, self._batches(spec)
        units = epochs if self.unit == "epoch" else epochs * batches
        # Exact decimals: in floats 1 - 0.9 is a little below 0.1, and an epoch would be lost.
        kept = int((1 - Fraction(str(self.ratio))) * units)
        least = batches if self.unit == "batch" else 1
        if kept < least:
            raise CodecError(
                f"ratio={self.ratio} of {units} {'epochs' if self.unit == 'epoch' else 'batches'} "
                f"keeps {kept}, but {least} are needed; lower ratio or batch_size"
            )
        return kept

    def spec(self, spec: LabelSpec) -> LabelSpec:
        """The shape [epochs, n, k] of an epoch pool, or [1, labels, k] of a batch pool."""
        kept = self.kept(spec)
        if self.unit == "epoch":
            return replace(spec, epochs=kept)
        return replace(spec, epochs=1, images=self._labels(spec, kept))

    def take(self, values: Tensor) -> Tensor:
        """The kept part of values [e, n, ...], one for each label, in the shape of `spec`."""
        epochs, images = values.shape[:2]
        whole = LabelSpec(epochs, images, 2)
        shape = self.spec(whole)
        if self.unit == "batch-to-epoch":
            values = values[:, : self._batches(whole) * self.batch_size]
        rows = values.flatten(0, 1)[: shape.labels]
        return rows.unflatten(0, (shape.epochs, shape.images))

    def reads(self, spec: LabelSpec) -> Tensor:
        """[E, positions] int64, the kept unit that each training epoch and position reads.

        Units count from 0 in the order in which they were labelled; "epoch" has one position.
        """
        kept, batches = self.kept(spec), self._batches(spec)
        if self.unit == "epoch":
            return self._draw(spec.epochs, torch.tensor([kept]))
        if self.unit == "batch":
            positions = torch.arange(batches)
            # Batch j is kept in every whole epoch, and in the last one if that reaches j.
            choices = (kept - positions + batches - 1) // batches
            return self._draw(spec.epochs, choices) * batches + positions
        positions_whole = -(-spec.images // self.batch_size)
        return self._draw(spec.epochs, torch.full((positions_whole,), kept))

    def sources(self, spec: LabelSpec) -> Sources:
        """Label epoch and position of the label that each training epoch reads at each position."""
        reads = self.reads(spec)
        places = torch.arange(spec.images).expand(spec.epochs, -1)
        if self.unit == "epoch":
            return Sources(reads.expand(-1, spec.images), places)
        units = reads[:, torch.arange(spec.images) // self.batch_size]
        batches = self._batches(spec)
        within = places % self.batch_size
        return Sources(units // batches, units % batches * self.batch_size + within)

    def expand(self, pool: Tensor, sources: Sources) -> Tensor:
        """Training values [E, n, ...] out of a pool in the shape of `spec`."""
        if self.unit == "epoch":
            return pool[sources.epochs[:, 0]]
        images = sources.places.shape[1]
        if self.unit == "batch-to-epoch":
            images = images // self.batch_size * self.batch_size
        return pool[0][sources.epochs * images + sources.places]

    def _batches(self, spec: LabelSpec) -> int:
        """B: batches of an epoch that can be kept."""
        if self.unit == "batch-to-epoch":
            return spec.images // self.batch_size
        return -(-spec.images // self.batch_size)

    def _labels(self, spec: LabelSpec, kept: int) -> int:
        """Labels of the first `kept` batches."""
        if self.unit == "batch-to-epoch":
            return kept * self.batch_size
        epochs, batches = divmod(kept, self._batches(spec))
        return epochs * spec.images + min(batches * self.batch_size, spec.images)

    def _draw(self, epochs: int, choices: Tensor) -> Tensor:
        """[epochs, len(choices)], each uniform below its column's choices."""
        # NumPy guarantees the raw PCG64 stream across versions, unlike that of randint.
        bits = np.random.PCG64(self.seed).random_raw(epochs * len(choices))
        fractions = torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)
        return (fractions.reshape(epochs, -1) * choices).floor().long()
