"""Where recovery starts: the values of recover.init."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data import select_images
from distill.data.batched import DecodedImages
from distill.recipes.tables.recover import RecoverTable
from distill.run.artefacts import RECOVER_STAGE
from distill.run.context import Context
from distill.stages.mosaics import realistic_mosaics
from distill.stages.recover.real import make_anchors, make_groups
from distill.stages.recover.recipe import set_shape
from distill.store.large_arrays import is_large
from distill.teachers.loading import load_committee
from synth.formation import encode_images
from synth.images import Images, images_at
from synth.matching.start import draw_noise


def start_mosaics(context: Context, table: RecoverTable) -> Images:
    """Realistic crops of real images, tiled, [k * ipc, c, h, w] in class order. Source: RDED."""
    return realistic_mosaics(context, load_committee(context), table, RECOVER_STAGE)


def start_real(context: Context, table: RecoverTable) -> Images:
    """Real images, [k * ipc, c, h, w] in class order. Source: SRe2L++."""
    return context.random_real(table.ipc, context.generator(RECOVER_STAGE, "init"))[0]


def start_groups(context: Context, table: RecoverTable) -> Images:
    """Real images, image k of a class from its group k of difficulty. Source: after PSM (2026)."""
    images, labels = context.split("train")
    groups, own = make_groups(context), labels.cpu()
    generator, found = context.generator(RECOVER_STAGE, "init"), []
    for label in range(context.classes):
        for group in range(table.ipc):
            members = torch.nonzero((own == label) & (groups == group)).flatten()
            found.append(members[torch.randint(len(members), (1,), generator=generator)])
    return select_images(images, torch.cat(found))


def start_anchors(context: Context, table: RecoverTable) -> Images:
    """The anchors of each image, tiled, [k * ipc, c, h, w]. Source: CIM (Shang et al. 2026)."""
    images, _ = context.split("train")
    anchors, each = make_anchors(context), table.factor**2
    shape = set_shape(context)

    def one(place: int) -> Tensor:
        own = images_at(images, anchors[place * each : (place + 1) * each])
        return encode_images(own, table.factor)[0].cpu()

    return DecodedImages(shape[0], (shape[1], shape[2], shape[3]), one)


def start_noise(context: Context, table: RecoverTable) -> Images:
    """Normal noise, [k * ipc, c, h, w]; a large set's is drawn image by image. Source: SRe2L."""
    shape = set_shape(context)
    if not is_large(shape, 4):
        return draw_noise(shape, context.generator(RECOVER_STAGE, "init")).to(context.device)

    def one(place: int) -> Tensor:
        return draw_noise((1, *shape[1:]), context.generator(RECOVER_STAGE, "init", place))[0]

    return DecodedImages(shape[0], (shape[1], shape[2], shape[3]), one)
