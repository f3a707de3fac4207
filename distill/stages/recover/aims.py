"""What each member of the committee aims at: the values of recover.aim."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.errors import WorkError
from distill.run.context import Context
from distill.stages.recover.real import make_anchors, make_groups
from distill.stages.recover.recipe import eligible, recover_table
from synth.images import images_at
from synth.recovery import (
    Aim,
    AnchorAim,
    DirectionAim,
    NormAim,
    NormStatistics,
    RecoverBatch,
    class_statistics,
    gradient_directions,
    running_statistics,
)

# Real images in one forward pass.
_BATCH = 500


class MemberAims:
    """The aims of the members that may be drawn, for one batch after the other."""

    def __init__(self, context: Context, members: Sequence[nn.Module]) -> None:
        """Take the members of the whole committee, in its order, and ask them about real images.

        Raises:
            WorkError: if a member has no statistics, or no layer, to compare with.
        """
        self._context, self._table = context, recover_table(context)
        self._statistics: dict[int, Sequence[NormStatistics]] = {}
        self._directions: dict[int, Sequence[Tensor]] = {}
        for place, spec in eligible(context) if self._table.bn_weight else ():
            try:
                self._ask(place, members[place])
            except ValueError as error:
                raise WorkError(f"recover: member {spec}: {error}") from None

    def of_batch(self, place: int, batch: RecoverBatch) -> Aim | None:
        """What a member aims at for a batch; None where the aim has no weight."""
        table = self._table
        if not table.bn_weight:
            return None
        if table.aim == "directions":
            return DirectionAim(self._directions[place])
        if table.aim == "anchors":
            return AnchorAim(self._anchors(batch), table.factor)
        targets = self._statistics[place]
        if table.aim == "groups" or table.batches == "within":
            # A call is a group of difficulty, which is an IPC index, or a class.
            targets = [layer.of_class(batch.call) for layer in targets]
        return NormAim(targets, table.first_bn)

    def _ask(self, place: int, network: nn.Module) -> None:
        context, table = self._context, self._table
        if table.aim == "anchors":
            return
        images, labels = context.split("train")
        if table.aim == "directions":
            batches = (batch for batch in images.split(_BATCH))
            self._directions[place] = gradient_directions(network, batches)
        elif table.aim == "groups":
            groups = make_groups(context).to(context.device)
            self._statistics[place] = class_statistics(network, images, groups, table.ipc)
        elif table.batches == "within":
            self._statistics[place] = class_statistics(network, images, labels, context.classes)
        else:
            self._statistics[place] = running_statistics(network)

    def _anchors(self, batch: RecoverBatch) -> Tensor:
        """The anchors [b * factor^2, c, h, w] of a batch."""
        each = self._table.factor**2
        places = batch.places[:, None] * each + torch.arange(each)
        real, _ = self._context.split("train")
        chosen = make_anchors(self._context)[places.flatten()]
        return images_at(real, chosen).to(self._context.device)
