"""What matching learns where images are kept in few bytes: the numbers of a coding."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data import ZCAPreprocess
from distill.errors import RecipeError, WorkError
from distill.recipes.tables.match import MatchTable
from distill.run.context import Context
from distill.sets.coded_images import CodedImages, code_images
from distill.sets.cost import count_bytes
from distill.sets.set_file import SetFile
from synth.coding import CodingError
from synth.coding.trim import trim
from synth.matching.rate import Rate
from synth.matching.start import class_labels

# What a coder takes beside the estimate that is learned with; `trim` sees to the rest.
_OVER_ESTIMATE = {"arithmetic": 1.005, "lzma": 1.35}


def coded_images(context: Context, table: MatchTable) -> CodedImages | None:
    """How a recipe keeps the images of its set; None for the pixels themselves."""
    if not table.coded:
        return None
    return code_images(context, table.images, table.ipc, table.factor)


def rate_within(coded: CodedImages, room: int) -> Rate:
    """What the numbers of a coding may cost, so that the coded images take `room` bytes.

    Raises:
        RecipeError: if not even what is around them fits.
    """
    coding = coded.coding
    grey = coding.start(torch.full(coding.shape, 0.5))
    around = len(coded.pack(grey))
    if room <= around:
        raise RecipeError(
            f"match.budget_bytes leaves {room:,} bytes for images, but {coding.shape[0]} grey "
            f"ones take {around:,}; allow more bytes, or lower match.ipc"
        )
    header = around - len(coding.pack(grey, coded.coder))
    return Rate(coding.bits, 8 * (room - header) / _OVER_ESTIMATE[coded.coder])


def pack_within(coded: CodedImages, parameters: Tensor, room: int | None) -> tuple[Tensor, bytes]:
    """Parameters whose coded images take at most `room` bytes, and these bytes.

    Raises:
        WorkError: if they cannot be made to fit.
    """
    if room is None:
        return parameters, coded.pack(parameters)
    try:
        return trim(coded.coding, parameters, room, coded.coder)
    except CodingError as error:
        raise WorkError(f"match.budget_bytes: {error}") from None


def image_budget(context: Context, table: MatchTable) -> int | None:
    """Bytes that coded images may take: the budget less labels and what reads the images.

    None without a budget.

    Raises:
        RecipeError: if labels and settings alone take the budget.
    """
    if table.budget_bytes is None:
        return None
    besides = bytes_besides(context, table)
    if besides >= table.budget_bytes:
        raise RecipeError(
            f"match.budget_bytes is {table.budget_bytes:,}, but labels and what reads the images "
            f"take {besides:,}; allow more bytes, or keep hard labels with match.labels = fixed"
        )
    return table.budget_bytes - besides


def bytes_besides(context: Context, table: MatchTable) -> int:
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
