"""What matching learns where images are kept in few bytes: the numbers of a coding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.data import AnyPreprocess, ZCAPreprocess
from distill.errors import RecipeError, WorkError
from distill.recipes.build import build_coding
from distill.recipes.tables.match import MatchTable
from distill.run.artefacts import MATCH_STAGE
from distill.run.context import Context
from distill.sets.coded import best_coder
from distill.store.hdf5 import smallest_unsigned
from synth.coding import CodingError, ImageCoding, Shape, pack_images
from synth.coding.trim import trim
from synth.formation import decode_images
from synth.matching.rate import Rate

# Bytes of float32.
_FLOAT = 4


@dataclass(frozen=True)
class CodedImages:
    """The images of a set as the numbers of a coding.

    Attributes:
        coding: of the stored images' pixels.
        preprocess: from pixels to the space of the networks.
        factor: each stored image decodes to factor^2 images.
        coder: of the bytes.
    """

    coding: ImageCoding
    preprocess: AnyPreprocess
    factor: int
    coder: str

    def start(self, images: Tensor) -> Tensor:
        """The numbers of stored images [n, c, h, w], given in the space of the networks."""
        return self.coding.start(self.preprocess.inverse(images).clamp(0, 1))

    def stored(self, parameters: Tensor) -> Tensor:
        """Images [n, c, h, w] in the space of the networks, as a receiver gets them."""
        return self.preprocess(self.coding.decode(parameters))

    def seen(self, parameters: Tensor) -> Tensor:
        """Images [n * factor^2, c, h, w] that students see; differentiable."""
        return decode_images(self.stored(parameters), self.factor)

    def rate(self, parameters: Tensor, room: int) -> Rate:
        """What the images may cost, so that they take `room` bytes with all that is around them.

        Args:
            parameters: of the images at first: the header is theirs, and so is what the coder
                takes more than the estimate.
            room: bytes of the coded images.

        Raises:
            RecipeError: if not even the header fits.
        """
        body = len(self.coding.pack(parameters, self.coder))
        header = len(pack_images(self.coding, parameters, self.coder)) - body
        if room <= header:
            raise _too_few(room, header)
        estimate = float(self.coding.bits(parameters).detach()) / 8
        return Rate(self.coding.bits, 8 * (room - header) * estimate / body)

    def finish(self, parameters: Tensor, room: int | None) -> tuple[Tensor, bytes]:
        """Parameters whose coded images take at most `room` bytes, and these bytes.

        Raises:
            WorkError: if they cannot be made to fit.
        """
        if room is None:
            return parameters, pack_images(self.coding, parameters, self.coder)
        try:
            return trim(self.coding, parameters, room, self.coder)
        except CodingError as error:
            raise WorkError(f"match: {error}; see match.budget_bytes") from None


def coded_images(context: Context, table: MatchTable) -> CodedImages | None:
    """How a recipe keeps the images of its set; None for the pixels themselves."""
    if not table.coded:
        return None
    data = context.data
    shape = (context.classes * table.ipc, data.channels, *data.size)
    coding = build_coding(table.images, shape, context.classes)
    return CodedImages(coding, context.preprocess, table.factor, best_coder())


def image_budget(context: Context, table: MatchTable) -> int | None:
    """Bytes that coded images may take: the budget less labels and what reads the images.

    None without a budget.

    Raises:
        RecipeError: if labels and settings alone take the budget.
    """
    if table.budget_bytes is None:
        return None
    besides = _besides(context, table)
    if besides >= table.budget_bytes:
        raise _too_few(table.budget_bytes, besides)
    return table.budget_bytes - besides
