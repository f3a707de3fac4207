"""Label strategies applied to a committee's votes, and to stored labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Generator, Tensor

from synth.committee.relabel import StoredVotes
from synth.committee.strategies import (
    Zones,
    aggregate_crowd,
    calibrate,
    draw_cutmix_boxes,
    is_hard_epoch,
    mean_probabilities,
    next_of_image,
    refined_labels,
    replace_dropped,
    self_mix,
    smoothed_logits,
    zone_of,
)
from synth.committee.vote import Committee
from synth.images import Images
from synth.losses import hard_logits
from synth.training.batches import Batch

# In place of a smaller probability, so that logits stay within float16.
_MIN_PROBABILITY = 1e-8


def aggregated_vote(
    committee: Committee, images: Tensor, rule: Sequence[str], batch_statistics: bool
) -> Tensor:
    """Label logits [n, k] of a batch of views.

    Args:
        committee: teachers and their weights.
        images: [n, c, h, w].
        rule: "logits" (weighted mean), "probabilities" (log of the weighted mean), or crowd methods
            on the members' hard votes, whose posteriors are averaged.
        batch_statistics: as of `Committee.vote`.

    Raises:
        ImportError: if a crowd method needs a package that is not installed; says which.
    """
    if list(rule) == ["logits"]:
        return committee.vote(images, batch_statistics=batch_statistics)
    members = torch.stack(list(committee.votes(images, batch_statistics=batch_statistics)))
    if list(rule) == ["probabilities"]:
        return mean_probabilities(members, committee.weights)
    posterior = aggregate_crowd(rule, members.argmax(dim=2).cpu(), members.shape[2])
    return posterior.clamp_min(_MIN_PROBABILITY).log().to(images.device)


def apply_zones(votes: StoredVotes, hard: Tensor, zones: Zones) -> StoredVotes:
    """FerKD's zones on stored votes: background corrected, dropped views replaced.

    Args:
        votes: of every view.
        hard: [n] classes of the images.
        zones: thresholds on the probability of the image's class at the votes' temperature.
    """
    logits = votes.whole.float() / votes.temperature
    classes = hard[votes.ids.long()]
    probabilities = torch.softmax(logits, dim=2)
    zone = zone_of(probabilities, classes, zones)
    calibrated = calibrate(probabilities, classes, zones).clamp_min(_MIN_PROBABILITY)
    source = replace_dropped(votes.ids, zone)
    return replace(
        votes,
        logits=(calibrated.log() * votes.temperature).flatten(0, 1)[source].half(),
        views=votes.views.flatten(0, 1)[source],
    )


def with_unlabelled(
    votes: StoredVotes, chosen: Tensor, hard: Tensor, rule: Literal["reuse", "hard"]
) -> StoredVotes:
    """Replace the views or the labels of views that the teachers did not label.

    Args:
        votes: of every view; the logits of those that were not chosen are ignored.
        chosen: [e, n] bool, views that the teachers labelled.
        hard: [n] classes of the images.
        rule: "reuse" replaces such a view by the next labelled one of the same image, in cyclic
            order; "hard" labels it with its image's class. An image without a labelled view gets
            its class in both.
    """
    classes = votes.logits.shape[2]
    own = hard_logits(hard[votes.ids.long()].flatten(), classes) * votes.temperature
    flat = chosen.flatten()
    logits = torch.where(flat[:, None], votes.whole.flatten(0, 1).float(), own).half()
    source = torch.arange(len(flat))
    if rule == "reuse":
        source = torch.where(flat, source, next_of_image(votes.ids.long().flatten(), flat))
    source = source.view_as(votes.ids)
    return replace(votes, logits=logits[source], views=votes.views.flatten(0, 1)[source])


def refined(votes: StoredVotes, hard: Tensor, share: float) -> StoredVotes:
    """GIFT's labels: mixed with `share` of the hard label [n] of each image."""
    classes = votes.logits.shape[2]
    rows = refined_labels(
        votes.whole.float().flatten(0, 1),
        hard[votes.ids.long()].flatten(),
        votes.temperature,
        share,
    )
    logits = rows.clamp_min(_MIN_PROBABILITY).log() * votes.temperature
    return replace(votes, logits=logits.view(*votes.ids.shape, classes).half())


def with_classes(
    batches: Iterable[Batch], hard: Tensor, weight: float, temperature: float
) -> Iterator[Batch]:
    """Batches whose soft labels are mixed with the classes of their images, stored or online.

    The label is (1 - weight) softmax(z / T) + weight c at the temperature T of the training. c is
    the class of the image, one-hot; of a mixed view the classes of both, by area or weight.

    Args:
        batches: that say of which images their views are.
        hard: [n] classes of the images.
        weight: of the class, in [0, 1).
        temperature: T > 0.

    Raises:
        ValueError: for a batch that does not say it.
    """
    classes_of = hard.cpu()
    for batch in batches:
        if batch.ids is None:
            raise ValueError("a batch does not say of which images its views are; give it ids")
        own = torch.nn.functional.one_hot(classes_of[batch.ids], batch.labels.shape[1])
        target = own.to(batch.labels)
        if batch.mix is not None:
            share = batch.mix.own_share((batch.images.shape[2], batch.images.shape[3]))
            target = share * target + (1 - share) * target[batch.mix.partners.to(target.device)]
        soft = torch.softmax(batch.labels / temperature, dim=1)
        mixed = (1 - weight) * soft + weight * target
        yield replace(batch, labels=mixed.clamp_min(_MIN_PROBABILITY).log() * temperature)


def soft_hard_soft(
    votes: StoredVotes, images: Images, hard: Tensor, epochs: int, share: float, smoothing: float
) -> Callable[[int], Iterable[Batch]]:
    """Batches by epoch with HALD's stages: stored labels, then smoothed hard ones, then stored.

    Hard labels have the temperature of the votes, as a training has only one.

    Args:
        votes: of every view.
        images: [n, c, h, w] that students see.
        hard: [n] their classes.
        epochs: of the training.
        share: of the epochs that are hard.
        smoothing: of the hard labels.
    """
    classes = votes.logits.shape[2]
    smooth = smoothed_logits(hard.cpu(), classes, smoothing) * votes.temperature
    stage = replace(votes, logits=smooth[votes.ids.long()].half())

    def batches(epoch: int) -> Iterable[Batch]:
        chosen = stage if is_hard_epoch(epoch, epochs, share) else votes
        return chosen.batches(images, epoch)

    return batches


def self_mixed(
    votes: StoredVotes, images: Images, generator: Generator
) -> Callable[[int], Iterable[Batch]]:
    """Batches by epoch in which a box of each view comes from the next view of the same image.

    Labels mix by area at the votes' temperature. Source: Shen 2023 (FerKD's SelfMix).

    Args:
        votes: of every view.
        images: [n, c, h, w] that students see.
        generator: draws the boxes.

    Raises:
        ValueError: if the views are mixed already.
    """
    if votes.mixes is not None:
        raise ValueError(f"the views are mixed by {votes.mixes.kind} already")
    flat = votes.ids.long().flatten()
    partners = next_of_image(flat, torch.ones_like(flat, dtype=torch.bool)).view_as(votes.ids)
    views, logits = votes.views.flatten(0, 1), votes.whole.flatten(0, 1)

    def batches(epoch: int) -> Iterator[Batch]:
        row = epoch % len(partners)
        others = replace(
            votes,
            ids=votes.ids[row, None],
            views=views[partners[row]][None],
            logits=logits[partners[row]][None],
        )
        pairs = zip(votes.batches(images, row), others.batches(images, 0), strict=True)
        for own, other in pairs:
            size = (images.shape[2], images.shape[3])
            boxes = draw_cutmix_boxes(len(own.images), size, generator)
            seen, share = self_mix(own.images, other.images, boxes)
            soft, partner = (
                torch.softmax(batch.labels / votes.temperature, dim=1) for batch in (own, other)
            )
            mixed = share[:, None] * soft + (1 - share[:, None]) * partner
            labels = mixed.clamp_min(_MIN_PROBABILITY).log() * votes.temperature
            yield Batch(seen, labels, own.parts)

    return batches
