"""Where recovery starts: the values of recover.init."""

from __future__ import annotations

from torch import Tensor

from distill.data.batched import DecodedImages
from distill.recipes.tables.recover import RecoverTable
from distill.run.artefacts import RECOVER_STAGE
from distill.run.context import Context
from distill.stages.mosaics import realistic_mosaics
from distill.stages.recover.batch import set_shape
from distill.store.large_arrays import is_large
from distill.teachers.loading import load_committee
from synth.images import Images
from synth.matching.start import draw_noise


def start_mosaics(context: Context, table: RecoverTable) -> Images:
    """Realistic crops of real images, tiled, [k * ipc, c, h, w] in class order. Source: RDED."""
    return realistic_mosaics(context, load_committee(context), table, RECOVER_STAGE)


def start_real(context: Context, table: RecoverTable) -> Images:
    """Real images, [k * ipc, c, h, w] in class order. Source: SRe2L++."""
    return context.random_real(table.ipc, context.generator(RECOVER_STAGE, "init"))[0]


def start_noise(context: Context, table: RecoverTable) -> Images:
    """Normal noise, [k * ipc, c, h, w]; a large set's is drawn image by image. Source: SRe2L."""
    shape = set_shape(context)
    if not is_large(shape, 4):
        return draw_noise(shape, context.generator(RECOVER_STAGE, "init")).to(context.device)

    def one(place: int) -> Tensor:
        return draw_noise((1, *shape[1:]), context.generator(RECOVER_STAGE, "init", place))[0]

    return DecodedImages(shape[0], (shape[1], shape[2], shape[3]), one)
