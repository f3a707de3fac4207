"""Batches of images with label logits, and how a set is split into them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from synth.augment import Augmentation, Mix, MixKind, draw_mix
from synth.images import Images, LabelLogits, images_at

# Below it a logarithm would leave float32's range: a class that no label names.
_MIN_PROBABILITY = 1e-13


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


def mixed_batches(batches: Iterable[Batch], kind: MixKind, generator: Generator) -> Iterator[Batch]:
    """Batches whose images are mixed with each other, and whose labels in the same shares.

    Source: Mixup, Zhang et al. 2018; CutMix, Yun et al. 2019.

    Args:
        batches: with label logits at temperature 1, not mixed yet.
        kind: "none" leaves them as they are.
        generator: draws one mix for each batch.
    """
    for batch in batches:
        if kind == "none":
            yield batch
            continue
        size = (batch.images.shape[2], batch.images.shape[3])
        mix = draw_mix(kind, len(batch.images), size, generator)
        share, soft = mix.own_share(size), batch.labels.softmax(dim=1)
        mixed = share * soft + (1 - share) * soft[mix.partners.to(soft.device)]
        labels = mixed.clamp_min(_MIN_PROBABILITY).log()
        yield replace(batch, images=mix.apply(batch.images), labels=labels, mix=mix)
