"""Mosaics of real crops that the committee of a run finds realistic."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.context import Context
from distill.tables import RecoverTable, SelectTable
from synth.committee import Committee
from synth.selection import MosaicSettings, draw_mosaics, make_mosaics, realism_loss


def realistic_mosaics(
    context: Context, committee: Committee, table: RecoverTable | SelectTable, stage: str
) -> Tensor:
    """Normalised mosaics [k * ipc, c, h, w] in class order.

    Crops are cut from pixels, so that whitened images are the whitening of what was cut.
    """
    settings = MosaicSettings(table.candidates, table.crops, table.factor, table.crop_area)
    split = context.data.train
    pixels = context.on_device(split.images)
    found = []
    for label in range(context.classes):
        context.stop.check()
        members = torch.nonzero(split.labels == label).flatten()
        generator = context.generator(stage, "mosaics", label)
        draw = draw_mosaics(members, table.ipc, settings, context.data.size, generator)

        def loss(crops: Tensor, label: int = label) -> Tensor:
            return realism_loss(committee.vote(context.preprocess(crops)), label)

        found.append(make_mosaics(pixels, draw, table.ipc, table.factor, loss))
    return context.preprocess(torch.cat(found))
