"""Soft labels for augmented views: voted once and stored, or asked for online."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from synth.augment import Augmentation, View
from synth.training import Batch, split_batches

Labeller = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class StoredVotes:
    """A soft label for every view of every image, by epochs.

    Attributes:
        ids: [e, n] index of the image at each place of each epoch.
        views: [e, n, v] float16 augmentation parameters; v is 0 without augmentation.
        logits: [e, n, k] float16 voted logits.
        families: augmentation families, in the order of their parameters in `views`.
        batch_size: places that were labelled, and must be trained on, together.
        temperature: at which students should match the logits.
        batch_statistics: whether the teachers' BatchNorm used each batch's own statistics.
    """

    ids: Tensor
    views: Tensor
    logits: Tensor
    families: tuple[str, ...]
    batch_size: int
    temperature: float
    batch_statistics: bool

    def batches(self, images: Tensor, epoch: int) -> Iterator[Batch]:
        """The batches of training epoch `epoch`; stored epochs are read in turn, over and over."""
        row = epoch % len(self.ids)
        for places in split_batches(self.ids.shape[1], self.batch_size):
            batch = images[self.ids[row, places].long().to(images.device)]
            view = View.from_tensor(self.families, self.views[row, places].float())
            labels = self.logits[row, places].float().to(images.device)
            yield Batch(view.apply(batch), labels)

    def mean_probabilities(self) -> Tensor:
        """Mean soft label [n, k] of each image over its views, at temperature 1."""
        epochs, n, k = self.logits.shape
        sums = torch.zeros(n, k)
        probabilities = torch.softmax(self.logits.float(), dim=-1)
        sums.index_add_(0, self.ids.long().reshape(-1), probabilities.reshape(-1, k))
        return sums / epochs


def relabel_epoch(
    images: Tensor,
    labeller: Labeller,
    batch_size: int,
    augmentation: Augmentation,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one epoch of views and label them.

    Args:
        images: [n, c, h, w] of the synthetic set.
        labeller: images [b, c, h, w] -> logits [b, k], called on whole batches.
        batch_size: images labelled together.
        augmentation: families applied all in turn.
        generator: draws order and views.

    Returns:
        ids [n] int64, views [n, v] float16 and logits [n, k] float16.
    """
    n, _, h, w = images.shape
    ids, view = draw_views(n, (h, w), augmentation, generator)
    logits = [
        labeller(view.select(places).apply(images[ids[places].to(images.device)]))
        for places in split_batches(n, batch_size)
    ]
    return ids, view.to_tensor(n).half(), torch.cat(logits).half().cpu()


def draw_views(
    count: int, size: tuple[int, int], augmentation: Augmentation, generator: Generator
) -> tuple[Tensor, View]:
    """Draw the order and the views of one epoch, before anything is labelled.

    Args:
        count: n, images.
        size: (h, w) of the images.
        augmentation: families applied all in turn.
        generator: draws both; the same generator draws the same again.

    Returns:
        ids [n] int64, and the view of the image at each place.
    """
    ids = torch.randperm(count, generator=generator)
    return ids, augmentation.sample(count, size, generator)


def labelled_online(
    images: Tensor,
    labeller: Labeller,
    batch_size: int,
    augmentation: Augmentation,
    generator: Generator,
) -> Iterator[Batch]:
    """One epoch of views that `labeller` labels as they are drawn; nothing is stored."""
    n, _, h, w = images.shape
    ids, view = draw_views(n, (h, w), augmentation, generator)
    for places in split_batches(n, batch_size):
        seen = view.select(places).apply(images[ids[places].to(images.device)])
        yield Batch(seen, labeller(seen))
