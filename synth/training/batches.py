"""Batches of images with label logits, and how a set is split into them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from synth.augment import Augmentation, Mix, draw_mix
from synth.images import Images, LabelLogits, images_at

# The least probability in a mixed label.
_LEAST = 1e-12


@dataclass(frozen=True)
class Batch:
    """What one step of the optimiser sees.

    Attributes:
        images: [b, c, h, w] as the network sees them.
        labels: [b, k] label logits.
        parts: parts that go through the network one after the other, see `split_parts`: their
            gradients add up to that of the whole batch, but BatchNorm sees each part alone.
        ids: [b] int64 on the CPU, of which image of the set each is a view; None where unknown.
        mix: how these views were mixed with each other; None for not at all.
    """

    images: Tensor
    labels: Tensor
    parts: int = 1
    ids: Tensor | None = None
    mix: Mix | None = None


def split_batches(count: int, batch_size: int) -> list[slice]:
    """Consecutive positions as batches; a last batch of one joins the batch before it.

    BatchNorm cannot train on one image, and teacher and student must use the same batches.
    """
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]


def split_parts(count: int, parts: int) -> list[slice]:
    """`count` positions of a batch in `parts` parts, as even as possible, none of one position.

    Teacher and student share this rule, so that the BatchNorm of both sees the same images.
    Source: CV-DD labels and trains each batch in two halves.
    """
    pieces = max(1, min(parts, count // 2))
    bounds = [count * index // pieces for index in range(pieces + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def shuffled_batches(
    images: Images,
    labels: LabelLogits,
    batch_size: int,
    augmentation: Augmentation | None,
    generator: Generator,
) -> Iterator[Batch]:
    """One epoch over `images` [n, c, h, w] with label logits [n, k], shuffled and augmented.

    Images and labels that are read from files are in memory one batch at a time.
    """
    order = torch.randperm(len(images), generator=generator)
    for places in split_batches(len(images), batch_size):
        index = order[places]
        batch = images_at(images, index)
        if augmentation is not None:
            size = (images.shape[2], images.shape[3])
            batch = augmentation.sample(len(index), size, generator).apply(batch)
        soft = labels[index.to(labels.device, non_blocking=True)]
        yield Batch(batch, soft, ids=index)


def mixed_batches(
    batches: Iterable[Batch], kind: Literal["cutmix", "mixup"], generator: Generator
) -> Iterator[Batch]:
    """The batches with their images mixed, and their labels in the same shares.

    Labels are mixed as probabilities. Source: Zhang et al. 2018 (Mixup), Yun et al. 2019 (CutMix).
    """
    for batch in batches:
        size = (batch.images.shape[2], batch.images.shape[3])
        mix = draw_mix(kind, len(batch.images), size, generator)
        share, own = mix.own_share(size), batch.labels.softmax(dim=1)
        others = own[mix.partners.to(own.device, non_blocking=True)]
        labels = (share * own + (1 - share) * others).clamp_min(_LEAST).log()
        yield replace(batch, images=mix.apply(batch.images), labels=labels, mix=mix)
