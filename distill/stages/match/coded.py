"""What matching learns where images are kept in few bytes: the numbers of a coding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.data import AnyPreprocess, ZCAPreprocess
from distill.errors import RecipeError, WorkError
from distill.recipes.build import build_coding
from distill.recipes.tables.match import MatchTable
from distill.run.context import Context
from distill.sets.coded_set import OVER_ESTIMATE, best_coder
from distill.sets.cost import count_bytes
from distill.sets.set_file import SetFile
from synth.coding import CodingError, ImageCoding, pack_images
from synth.coding.trim import trim
from synth.formation import decode_images
from synth.matching.rate import Rate
from synth.matching.start import class_labels


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

    def rate(self, room: int) -> Rate:
        """What the numbers may cost, so that the coded images take `room` bytes.

        Raises:
            RecipeError: if not even what is around them fits.
        """
        grey = self.coding.start(torch.full(self.coding.shape, 0.5))
        around = len(pack_images(self.coding, grey, self.coder))
        if room <= around:
            raise RecipeError(
                f"match.budget_bytes leaves {room:,} bytes for images, but {self.coding.shape[0]} "
                f"grey ones take {around:,}; allow more bytes, or lower match.ipc"
            )
        header = around - len(self.coding.pack(grey, self.coder))
        return Rate(self.coding.bits, 8 * (room - header) / OVER_ESTIMATE[self.coder])

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
            raise WorkError(f"match.budget_bytes: {error}") from None


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
    besides = _without_images(context, table)
    if besides >= table.budget_bytes:
        raise RecipeError(
            f"match.budget_bytes is {table.budget_bytes:,}, but labels and what reads the images "
            f"take {besides:,}; allow more bytes, or keep hard labels with match.labels = fixed"
        )
    return table.budget_bytes - besides


def _without_images(context: Context, table: MatchTable) -> int:
    """Bytes of everything that a receiver needs but the images."""
    count, preprocess = context.classes * table.ipc, context.preprocess
    seen = count * table.factor**2
    # Only the shapes of images and learned labels are counted.
    with torch.device("meta"):
        images = torch.empty(count, context.data.channels, *context.data.size)
        learned = torch.empty(seen, context.classes) if table.keeps_labels else None
    content = SetFile(
        images,
        class_labels(context.classes, table.ipc),
        {"class_names": list(context.data.class_names)},
        learned,
        whitening=preprocess.whitening if isinstance(preprocess, ZCAPreprocess) else None,
        coded=b"",
    )
    totals: dict[str, int] = count_bytes(content)["totals"]
    return totals["hard" if learned is None else "learned"]
