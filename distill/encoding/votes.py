"""Encode the voted labels of a set, and rebuild what students train on from what was shipped."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.build import build_codec
from distill.codec_specs import CodecSpec
from distill.encoding.networks import decode_network, is_network
from distill.encoding.views import Size, seed_gives, seeded_views
from distill.errors import WorkError
from distill.store.encoded import EncodedVotes, digest_views
from projectors import ProjectorError
from projectors.codecs import CodecError, Labels, LabelSpec, Pruned, decode, get_codec, unpack
from synth.relabel import StoredVotes


def encode_votes(votes: StoredVotes, spec: CodecSpec, seed: int, size: Size) -> EncodedVotes:
    """Encode voted labels.

    Args:
        votes: the labels in full.
        spec: codec, and whether the views are to come from the seed.
        seed: of the run that drew the views.
        size: (h, w) of the images.

    Raises:
        WorkError: if the labels do not fit the codec, or the seed does not give their views.
    """
    if votes.mixes is not None:
        raise WorkError(
            f"codec {spec.text}: the labels belong to views mixed by {votes.mixes.kind}, which "
            "encoded labels do not name; make them with relabel.mix = none"
        )
    codec = build_codec(spec, votes.batch_size)
    pool = codec.pool if isinstance(codec, Pruned) else None
    by_image = (pool is None or pool.unit == "epoch") and _permutations(votes.ids)
    logits = _by_image(votes.logits, votes.ids) if by_image else votes.logits
    try:
        payload = codec.encode(Labels(logits, votes.temperature))
    except CodecError as error:
        raise WorkError(f"codec {spec.text}: {error}") from None
    common = (payload, votes.families, votes.batch_size, votes.batch_statistics, by_image)
    if spec.seeded:
        if not seed_gives(votes, seed, size):
            raise WorkError(
                f"codec {spec.text}: seed {seed} does not give the views of these labels; leave "
                "out `seed`, and they are stored"
            )
        digest = digest_views(votes.ids, votes.views)
        return EncodedVotes(*common, seed=seed, views_digest=digest, parts=votes.parts)
    ids, views = votes.ids, votes.views
    if pool is not None:
        ids, views = pool.take(ids), pool.take(views)
    return EncodedVotes(*common, ids=ids, views=views, parts=votes.parts)


def decode_votes(encoded: EncodedVotes, images: Tensor) -> StoredVotes:
    """What students train on: a label for every place of every training epoch.

    Args:
        encoded: as shipped.
        images: [n, c, h, w] that students see.

    Raises:
        WorkError: if the payload is damaged or foreign, or does not fit the images and views.
    """
    try:
        if is_network(encoded.payload):
            return decode_network(encoded, images)
        return _decode_labels(encoded, len(images), (images.shape[2], images.shape[3]))
    except ProjectorError as error:
        raise WorkError(f"encoded labels: {error}") from None


def _decode_labels(encoded: EncodedVotes, images: int, size: Size) -> StoredVotes:
    container = unpack(encoded.payload)
    labels = decode(encoded.payload)
    codec = get_codec(container.config)
    spec = container.spec
    if spec.images != images:
        raise WorkError(
            f"encoded labels of {spec.images} images, but the set has {images}; encode them again"
        )
    ids, views = _views(encoded, spec, codec, size)
    if labels.sources is not None and isinstance(codec, Pruned):
        ids = codec.pool.expand(ids, labels.sources)
        views = codec.pool.expand(views, labels.sources)
    logits = labels.logits.half()
    return StoredVotes(
        ids,
        views,
        _by_place(logits, ids) if encoded.by_image else logits,
        encoded.families,
        encoded.batch_size,
        labels.temperature,
        encoded.batch_statistics,
        parts=encoded.parts,
    )


def _views(
    encoded: EncodedVotes, spec: LabelSpec, codec: object, size: Size
) -> tuple[Tensor, Tensor]:
    """Order and views of the kept labels, stored or drawn again."""
    kept = codec.pool.spec(spec) if isinstance(codec, Pruned) else spec
    ids, views = encoded.ids, encoded.views
    if ids is None or views is None:
        ids, views = seeded_views(
            encoded.seed or 0, spec.epochs, spec.images, size, encoded.families
        )
        if digest_views(ids, views) != encoded.views_digest:
            raise WorkError(
                f"seed {encoded.seed} does not give the views of the encoded labels on this "
                "machine; use the version of torch that made them, or ask for stored views"
            )
        if isinstance(codec, Pruned):
            ids, views = codec.pool.take(ids), codec.pool.take(views)
    shape = (kept.epochs, kept.images)
    if ids.shape != shape or views.shape[:2] != shape or int(ids.max()) >= spec.images:
        raise WorkError("the views of the encoded labels do not fit them; encode them again")
    return ids, views


def _permutations(ids: Tensor) -> bool:
    """Whether every epoch has every image once."""
    ordered = ids.sort(dim=1).values
    return bool((ordered == torch.arange(ids.shape[1])).all())


def _by_image(logits: Tensor, ids: Tensor) -> Tensor:
    """Labels [e, n, k] in the order of the images: label [e, ids[e, i]] is that of place i."""
    return torch.zeros_like(logits).scatter_(1, ids[..., None].expand_as(logits), logits)


def _by_place(logits: Tensor, ids: Tensor) -> Tensor:
    """The inverse of `_by_image`."""
    return logits.gather(1, ids[..., None].expand_as(logits))
