"""One pass over a source's images: what is seen of each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distill.data.batched import origin_of
from distill.data.source_splits import SourceSplits
from distill.data.sources.picture import Picture
from distill.data.splits import Split
from synth.images import Images

# Pixels along a side of what images are compared by.
_SIDE = 16

_BATCH = 256

# Standard deviation of the pixels below which an image shows nothing.
_BLANK = 1 / 255


class Stored(NamedTuple):
    """How an image is stored: its name or place, height and width, and mode ("" for arrays)."""

    name: str
    height: int
    width: int
    mode: str


@dataclass(frozen=True, eq=False)
class SurveyedPart:
    """What was seen of the images of a part.

    Attributes:
        name: "train", "validation" or "test", as a run would cut them.
        images: [n, c, h, w] at the size that they were looked at.
        labels: int64 [n].
        prints: a digest of the pixels of each image.
        descriptors: float32 [n, d] of length 1, or 0 for a blank image; see `describe`.
        gray: bool [n], whether the channels are equal.
        blank: bool [n], whether all pixels are, within one step of 8 bits.
        stored: of each image.
    """

    name: str
    images: Images
    labels: Tensor
    prints: list[bytes]
    descriptors: Tensor
    gray: Tensor
    blank: Tensor
    stored: list[Stored]

    def __len__(self) -> int:
        return len(self.labels)


def survey(
    splits: SourceSplits, seen: Callable[[int], None] = lambda count: None
) -> Iterator[SurveyedPart]:
    """Look at all images of the three parts once, batch by batch; yields each part.

    Args:
        splits: training, validation and test images of one shape.
        seen: called with the number of images after each batch.
    """
    for name, split in zip(("train", "validation", "test"), splits.three, strict=True):
        yield _survey_part(name, split, seen)


def _survey_part(name: str, split: Split, seen: Callable[[int], None]) -> SurveyedPart:
    prints: list[bytes] = []
    descriptors, gray, blank = [], [], []
    for images in split.images.split(_BATCH):
        pixels = images.detach().cpu().contiguous()
        prints += [hashlib.blake2b(one.numpy().data, digest_size=16).digest() for one in pixels]
        descriptors.append(describe(pixels))
        gray.append((pixels == pixels[:, :1]).flatten(1).all(dim=1))
        blank.append(pixels.flatten(1).std(dim=1) < _BLANK)
        seen(len(pixels))
    stored = [_stored(name, split.images, index) for index in range(len(split))]
    parts = (torch.cat(descriptors), torch.cat(gray), torch.cat(blank))
    return SurveyedPart(name, split.images, split.labels, prints, *parts, stored)


def describe(images: Tensor) -> Tensor:
    """What images [n, c, h, w] look like from afar: float32 [n, d] of length 1.

    Images are brought to at most 16x16 pixels, less their mean and divided by their length: the
    product of two is their correlation, which brightness, contrast and compression hardly change.
    A blank image is 0.
    """
    size = [min(_SIDE, side) for side in images.shape[2:]]
    small = functional.interpolate(
        images, size=size, mode="bilinear", antialias=True, align_corners=False
    ).flatten(1)
    centred = small - small.mean(dim=1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    least = _BLANK * centred.shape[1] ** 0.5
    return torch.where(length > least, centred / length.clamp(min=least), 0.0)


def _stored(part: str, images: Images, index: int) -> Stored:
    origin = origin_of(images, index)
    if isinstance(origin, Picture):
        return Stored(origin.name, *origin.shape(), origin.mode())
    height, width = images.shape[2:]
    return Stored(f"{part} image {index}", int(height), int(width), "")
