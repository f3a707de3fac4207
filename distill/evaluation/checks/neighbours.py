"""The real images that each image of a set is nearest to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import torch
from torch import Generator, Tensor

from distill.data import RealData
from distill.data.health.survey import describe
from distill.evaluation.checks.rates import interval_of
from synth.images import Images

# Neighbours that are kept of each image.
KEPT = 3

# Correlation from afar from which on an image is a near copy, as in `distill inspect`.
NEAR = 0.995

_BATCH = 1000


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest training images of some images.

    Attributes:
        indices: int64 [n, r] of training images, r <= 3, the nearest first.
        distances: [n, r] root mean square differences of pixels in [0, 1].
        alike: [n] the largest correlation from afar with any training image, see `describe`.
        exact: bool [n], whether a training image is equal in all 8-bit pixels.
    """

    indices: Tensor
    distances: Tensor
    alike: Tensor
    exact: Tensor

    @property
    def near(self) -> Tensor:
        """Whether a training image looks the same, or is; bool [n]."""
        return (self.alike >= NEAR) | self.exact

    @property
    def median_distance(self) -> float:
        """Of the nearest training images."""
        return median(self.distances[:, 0].tolist())


def find_neighbours(images: Tensor, real: Images) -> Neighbours:
    """Compare images with all real ones, in batches.

    Args:
        images: [n, c, h, w] in [0, 1].
        real: [m, c, h, w] in [0, 1].
    """
    found, places = torch.empty(len(images), 0), torch.empty(len(images), 0, dtype=torch.int64)
    alike, described = torch.full((len(images),), -1.0), describe(images)
    for start, part in _parts(real):
        distances = torch.cdist(images.flatten(1), part.flatten(1))
        here = torch.arange(start, start + len(part)).expand_as(distances)
        found = torch.cat([found, distances], dim=1)
        places = torch.cat([places, here], dim=1)
        found, order = found.topk(min(KEPT, found.shape[1]), largest=False)
        places = places.gather(1, order)
        alike = torch.maximum(alike, (described @ describe(part).T).amax(dim=1))
    nearest = _eight_bits(real[places[:, 0]])
    exact = (nearest == _eight_bits(images)).flatten(1).all(dim=1)
    pixels = images[0].numel()
    return Neighbours(places, found / pixels**0.5, alike, exact)


@dataclass(frozen=True)
class Balance:
    """Whether images are nearer to training images than to test images, of equally many.

    Attributes:
        nearer: images whose nearest real image is a training image.
        total: of the images.
    """

    nearer: int
    total: int

    @property
    def share(self) -> float:
        """Half where the set tells nothing of its own training images."""
        return self.nearer / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share lies with 95 % confidence."""
        return interval_of(self.nearer, self.total)


def nearer_to_training(images: Tensor, data: RealData, generator: Generator) -> Balance:
    """Count the images that are nearer to a training image than to any test image.

    As many training images as there are test images are drawn, or the other way round.

    Args:
        images: [n, c, h, w] in [0, 1].
        data: the real images.
        generator: random source.
    """
    count = min(len(data.train), len(data.test))
    drawn = [
        split.take(torch.randperm(len(split), generator=generator)[:count])
        for split in (data.train, data.test)
    ]
    train, test = (_least(images, split.images) for split in drawn)
    return Balance(int((train < test).sum()), len(images))


def _least(images: Tensor, real: Images) -> Tensor:
    least = torch.full((len(images),), torch.inf)
    for _, part in _parts(real):
        least = torch.minimum(least, torch.cdist(images.flatten(1), part.flatten(1)).amin(dim=1))
    return least


def _parts(real: Images) -> Iterator[tuple[int, Tensor]]:
    start = 0
    for part in real.split(_BATCH):
        yield start, part
        start += len(part)


def _eight_bits(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)
