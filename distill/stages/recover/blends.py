"""Real patches that recovered images are blended with: the values of recover.patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from distill.run.artefacts import RECOVER_STAGE
from distill.run.context import Context
from distill.stages.recover.disk import open_starts
from distill.stages.recover.real import draw_candidates
from distill.stages.recover.recipe import recover_table, set_shape
from synth.committee.features import head_inputs
from synth.images import images_at
from synth.recovery import Blending, RecoverBatch, Teacher, edge_complexity, nearest_patches


def make_blending(
    context: Context, teachers: Sequence[Teacher], batch: RecoverBatch
) -> Blending | None:
    """How the images of a batch are blended, or None where recover.blends is 0."""
    table = recover_table(context)
    if not table.blends:
        return None
    if table.patches == "nearest":
        return Blending(table.blends, table.blend_kept, _Nearest(context, teachers, batch))
    return Blending(table.blends, table.blend_kept, _starts(context, batch))


def _starts(context: Context, batch: RecoverBatch) -> Callable[[Tensor], Tensor]:
    """The images that recovery started from. Source: FADRM (Cui et al. 2025)."""

    def patches(images: Tensor) -> Tensor:
        starts = open_starts(context.checkpoint(RECOVER_STAGE), set_shape(context))
        return starts[batch.places].to(images.device)

    return patches


class _Nearest:
    """Whole real images chosen anew at each blend. Source: after RETA (Li et al. 2026)."""

    def __init__(self, context: Context, teachers: Sequence[Teacher], batch: RecoverBatch) -> None:
        self._context, self._teachers, self._batch = context, teachers, batch
        self._pools: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """The patches of the images [b, c, h, w] of the batch."""
        real, _ = self._context.split("train")
        weight = recover_table(self._context).patch_complexity
        found, chosen = self._features(images), torch.zeros(len(images), dtype=torch.int64)
        for label in self._batch.labels.unique().tolist():
            rows = torch.nonzero(self._batch.labels == label).flatten()
            places, features, complexity = self._pool(label)
            own = found[rows.to(found.device)]
            chosen[rows] = places[nearest_patches(own, features, complexity, weight).cpu()]
        return images_at(real, chosen).to(images.device)

    def _pool(self, label: int) -> tuple[Tensor, Tensor, Tensor]:
        """Places [p] of recover.candidates real images of a class, features and complexity."""
        if label not in self._pools:
            context = self._context
            real, _ = context.split("train")
            places = draw_candidates(context, label, "pool")
            images = images_at(real, places).to(context.device)
            self._pools[label] = places, self._features(images), edge_complexity(images)
        return self._pools[label]

    def _features(self, images: Tensor) -> Tensor:
        """Features [n, d] of the batch's teachers: a squared distance is the mean by weight."""
        parts = [
            teacher.weight**0.5 * normalize(head_inputs(teacher.network, images), dim=1)
            for teacher in self._teachers
        ]
        return torch.cat(parts, dim=1)
