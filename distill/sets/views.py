"""The views of labels: drawn again from the seed that drew them first, or cut to a pool."""

from __future__ import annotations

from dataclasses import replace

import torch

from distill.sets.soft_labels import DrawnViews, ViewPlan
from projectors.codecs import CodecError, LabelSpec
from projectors.codecs.labels import Sources
from projectors.codecs.pool import Pool
from synth.augment import MixKind
from synth.committee.relabel import StoredMixes, StoredVotes

Size = tuple[int, int]


def mix_of(mixes: StoredMixes | None) -> MixKind:
    """How views are mixed."""
    return "none" if mixes is None else mixes.kind


def plan_of(votes: StoredVotes, size: Size) -> ViewPlan:
    """All that determines, with a seed, the views of labels of images of `size` (h, w)."""
    return ViewPlan(votes.ids.shape[1], size, votes.families, votes.batch_size, mix_of(votes.mixes))


def seed_gives(votes: StoredVotes, seed: int, size: Size) -> bool:
    """Whether a seed draws the views of these labels, so that they need not be stored."""
    ids, views, mixes = plan_of(votes, size).draw(seed, len(votes.ids))
    if not (torch.equal(ids, votes.ids.long()) and torch.equal(views, votes.views)):
        return False
    if mixes is None or votes.mixes is None:
        return mixes is votes.mixes
    return torch.equal(mixes.partners, votes.mixes.partners.long()) and torch.equal(
        mixes.parameters, votes.mixes.parameters
    )


def take_views(pool: Pool, drawn: DrawnViews) -> DrawnViews:
    """The ids, views and mixes of the labels that a pool keeps.

    Raises:
        CodecError: if a pool of batches would cut a batch of mixed views.
    """
    ids, views, mixes = drawn
    return pool.take(ids), pool.take(views), None if mixes is None else _take(pool, mixes)


def expand_views(pool: Pool, spec: LabelSpec, kept: DrawnViews, sources: Sources) -> DrawnViews:
    """The ids, views and mixes that each training epoch reads of what `take_views` kept.

    Args:
        pool: the pool.
        spec: shape of the training's labels.
        kept: of the labels in the pool.
        sources: where each label comes from.
    """
    ids, views, mixes = kept
    if mixes is not None:
        partners = pool.expand(mixes.partners, sources)
        if pool.unit == "epoch":
            parameters = mixes.parameters[sources.epochs[:, 0]]
        else:
            parameters = mixes.parameters[0][pool.reads(spec)]
        mixes = replace(mixes, partners=partners, parameters=parameters)
    return pool.expand(ids, sources), pool.expand(views, sources), mixes


def _take(pool: Pool, mixes: StoredMixes) -> StoredMixes:
    epochs, images = mixes.partners.shape
    kept = pool.kept(LabelSpec(epochs, images, 2))
    if pool.unit == "epoch":
        return replace(
            mixes, partners=pool.take(mixes.partners), parameters=mixes.parameters[:kept]
        )
    if images % pool.batch_size:
        raise CodecError(
            f"a pool of batches of mixed views needs whole batches, but {images} images leave a "
            f"part of one of {pool.batch_size}; use unit=epoch, or make the labels with a "
            "relabel.batch_size that divides"
        )
    parameters = mixes.parameters.flatten(0, 1)[None, :kept]
    return replace(mixes, partners=pool.take(mixes.partners), parameters=parameters)
