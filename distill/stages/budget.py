"""How a recipe keeps the images of its set, and what of its budget of bytes is left for them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from distill.data import ZCAPreprocess
from distill.errors import RecipeError, WorkError
from distill.recipes.schema import Recipe
from distill.recipes.tables.relabel import RelabelTable
from distill.run.artefacts import COMMITTEE, COMMITTEE_STAGE
from distill.run.context import Context
from distill.sets.coded_images import CodedImages, code_images, largest, most_per_class
from distill.sets.coded_set import OVER_ESTIMATE
from distill.sets.cost import count_bytes
from distill.sets.network_labels import committee_bytes, expected_bytes, labelling_codec
from distill.sets.set_file import SetFile
from distill.store.committee import read_committee
from synth.coding import CodingError
from synth.coding.trim import trim
from synth.matching.rate import Rate
from synth.matching.start import class_labels


class Kept(Protocol):
    """A table that makes a set: how many images, how they are kept, and in how many bytes."""

    ipc: int
    images: str
    budget_bytes: int | None

    @property
    def coded(self) -> bool:
        """Whether a coding keeps the images."""
        ...

    @property
    def formed(self) -> int:
        """n: each stored image decodes to n^2 images."""
        ...

    @property
    def keeps_labels(self) -> bool:
        """Whether the set holds label logits of the images."""
        ...

    @property
    def label_bytes(self) -> int | None:
        """Bytes that they may take; None for float32."""
        ...


def coded_images(context: Context, table: Kept) -> CodedImages | None:
    """How a recipe keeps the images of its set; None for the pixels themselves."""
    if not table.coded:
        return None
    return code_images(context, table.images, table.ipc, table.formed)


def fill_budget(context: Context, table: Kept) -> int:
    """Images per class, at most those of the table, that fit into its budget under its coding.

    Random real images are counted, which those that are chosen later differ from by little.

    Raises:
        RecipeError: if not one per class fits.
    """

    def size(ipc: int) -> int:
        context.stop.check()
        generator = context.generator("budget", "random images")
        real, _ = context.random_real(ipc * table.formed**2, generator)
        coded = code_images(context, table.images, ipc, table.formed)
        return len(coded.pack(coded.start_real(real)))

    room = image_budget(context, table) or 0
    most = min(table.ipc, most_per_class(context, table.formed))
    # The last hundredth is left: the images that are chosen may take a little more.
    fitting = largest(size, room * 99 // 100, most, tolerance=0.0)
    if not fitting:
        raise RecipeError(
            f"{context.recipe.maker_name}.budget_bytes leaves {room:,} bytes for images, but one "
            f"of each class takes {size(1):,}; allow more bytes, or a coarser coding"
        )
    return fitting


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
    return Rate(coding.bits, 8 * (room - header) / OVER_ESTIMATE[coded.coder])


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
        raise WorkError(f"budget_bytes: {error}") from None


def image_budget(context: Context, table: Kept) -> int | None:
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
            f"{context.recipe.maker_name}.budget_bytes is {table.budget_bytes:,}, but labels and "
            f"what reads the images take {besides:,}; allow more bytes, or labels of fewer"
        )
    return table.budget_bytes - besides


def bytes_besides(context: Context, table: Kept) -> int:
    """Bytes of everything that a receiver needs but the images."""
    count, preprocess = context.classes * table.ipc, context.preprocess
    seen = count * table.formed**2
    # Only the shapes of images and learned labels are counted.
    with torch.device("meta"):
        images = torch.empty(count, context.data.channels, *context.data.size)
        whole = table.keeps_labels and table.label_bytes is None
        learned = torch.empty(seen, context.classes) if whole else None
    content = SetFile(
        images,
        class_labels(context.classes, table.ipc),
        {"class_names": list(context.data.class_names)},
        learned,
        whitening=preprocess.whitening if isinstance(preprocess, ZCAPreprocess) else None,
        coded=b"",
    )
    totals: dict[str, int] = count_bytes(content)["totals"]
    most = (table.label_bytes or 0) if table.keeps_labels else 0
    return totals["hard" if learned is None else "learned"] + most + _network_bytes(context)


def kept_network_inputs(recipe: Recipe) -> tuple[str, ...]:
    """The stage whose networks are kept within the budget to label every view, if any is."""
    if recipe.budget_bytes is None or labelling_codec(recipe) is None:
        return ()
    return (COMMITTEE_STAGE,)


def kept_network_keys(recipe: Recipe) -> Any:
    """The keys of other tables that decide what these networks take."""
    if not kept_network_inputs(recipe):
        return None
    relabel = recipe.relabel or RelabelTable()
    codec = None if recipe.encode is None else recipe.encode.codec
    return [codec, relabel.epochs, relabel.temperature]


def _network_bytes(context: Context) -> int:
    """Bytes of the committee that labels the views, expected ones before it is trained; 0 for none.

    Counted once: a search asks for them with every number of images.
    """
    recipe, data, path = context.recipe, context.data, context.run.path / COMMITTEE

    def count() -> int:
        if not path.is_file():
            return expected_bytes(recipe, data.channels, data.size, data.classes)
        return committee_bytes(recipe, read_committee(path)[0], data.classes)

    return context.once("label network", count) if kept_network_inputs(recipe) else 0
