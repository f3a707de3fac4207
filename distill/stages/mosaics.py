"""Mosaics of real crops that the committee of a run finds realistic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distill.data import split_by_index
from distill.recipes.tables.recover import RecoverTable
from distill.recipes.tables.select import SelectTable
from distill.run.context import Context
from distill.run.load import step_count
from distill.stages.units.networks import Units
from distill.stages.units.unit import Part, Task, Unit, fixed_generator
from distill.store.large_arrays import is_large
from synth.committee.vote import Committee
from synth.crops import crop_resized, draw_box
from synth.images import Images
from synth.selection import MosaicSettings, draw_mosaics, make_mosaics, realism_loss


def realistic_mosaics(
    context: Context, committee: Committee, table: RecoverTable | SelectTable, stage: str
) -> Images:
    """Normalised mosaics [k * ipc, c, h, w] in class order; a large set is made on access.

    Crops are cut from pixels, and whitening comes after tiling.
    """
    settings = MosaicSettings(table.candidates, table.crops, table.factor, table.crop_area)
    split = context.data.train
    pixels = context.on_device(split.images)

    def of_class(label: int) -> Tensor:
        context.stop.check()
        members = torch.nonzero(split.labels == label).flatten()
        generator = context.generator(stage, "mosaics", label)
        draw = draw_mosaics(members, table.ipc, settings, context.data.size, generator)

        def loss(crops: Tensor) -> Tensor:
            return realism_loss(committee.vote(context.preprocess(crops)), label)

        return make_mosaics(pixels, draw, table.ipc, table.factor, loss)

    shape = torch.Size((context.classes * table.ipc, *pixels.shape[1:]))
    if not is_large(shape, 4):
        by_class = [of_class(label) for label in range(context.classes)]
        return context.preprocess(torch.cat(by_class))
    return _ByClass(
        shape, table.ipc, pixels.device, lambda label: context.preprocess(of_class(label))
    )


@dataclass(eq=False)
class _ByClass:
    """Images in class order, made a class at a time on access; the last class is cached.

    Attributes:
        shape: [k * ipc, c, h, w].
        ipc: images per class.
        device: where they are.
        make: class -> its images [ipc, c, h, w].
    """

    shape: torch.Size
    ipc: int
    device: torch.device
    make: Callable[[int], Tensor]
    _last: tuple[int, Tensor] | None = field(default=None, init=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Any, /) -> Tensor:
        numbers = torch.arange(len(self))[places].tolist()
        return torch.stack([self._image(number) for number in numbers])

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """Batches of `split_size` images in order; the last may be smaller."""
        return split_by_index(self, split_size)

    def _image(self, number: int) -> Tensor:
        label, place = divmod(number, self.ipc)
        if self._last is None or self._last[0] != label:
            self._last = (label, self.make(label))
        return self._last[1][place]


# Candidates whose crops the committee scores in one batch.
_SCORED = 50


def mosaic_units(units: Units, table: RecoverTable | SelectTable) -> list[Task[Unit]]:
    """The committee scores every crop of every candidate of a class."""
    shape = units.shape
    candidates = min(table.candidates, shape.train // shape.classes)
    crops = candidates * table.crops
    batch = min(crops, _SCORED * table.crops)
    return [Task(shape.classes, (Part(step_count(crops, batch), _scored_crops(units, batch)),))]


def _scored_crops(units: Units, batch: int) -> Unit:
    """One batch of crops of real images, cut and scored by the committee."""
    size = units.shape.size

    def work(count: int) -> tuple[Callable[[], object], int]:
        committee, images, generator = units.committee, units.images(count), fixed_generator()

        def call() -> None:
            boxes = [draw_box(size, generator, 0.08, stretch=1.0) for _ in images]
            cut = [
                crop_resized(image.unsqueeze(0), box, size)
                for image, box in zip(images, boxes, strict=True)
            ]
            committee.vote(torch.cat(cut))

        return call, 1

    def dry(count: int) -> None:
        units.meta_committee().vote(units.meta_batch(count)[0])

    name = f"judged crops of {units.listed}"
    return units.unit(name, batch, work, dry, units.size(units.members))
