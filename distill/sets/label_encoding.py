"""Encode the voted labels of a set, and decode them for students."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from distill.errors import WorkError
from distill.recipes.build import build_codec
from distill.recipes.specs import CodecSpec, parse_codec
from distill.sets.encoded_labels import EncodedVotes, check_memory, digest_views
from distill.sets.network_labels import LabelSources, decode_network, encode_network, is_network
from distill.sets.own_codecs import register_own
from distill.sets.set_file import SetFile
from distill.sets.soft_labels import DrawnViews
from distill.sets.views import Size, expand_views, mix_of, seed_gives, take_views
from projectors import ProjectorError
from projectors.codecs import CodecError, Labels, LabelSpec, Pruned, decode, get_codec, unpack
from projectors.codecs.errors import UnknownCodecError
from projectors.codecs.registry import encode
from synth.committee.relabel import StoredVotes
from synth.images import gather


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
    codec = build_codec(spec, votes.batch_size)
    pool = codec.pool if isinstance(codec, Pruned) else None
    by_image = (pool is None or pool.unit == "epoch") and _permutations(votes.ids)
    logits = _by_image(votes.whole, votes.ids) if by_image else votes.whole
    drawn: DrawnViews = (votes.ids, votes.views, votes.mixes)
    try:
        kept = drawn if pool is None else take_views(pool, drawn)
        payload = encode(codec, Labels(logits, votes.temperature))
    except CodecError as error:
        raise WorkError(f"codec {spec.text}: {error}") from None
    common = (payload, votes.families, votes.batch_size, votes.batch_statistics, by_image)
    if spec.seeded:
        if not seed_gives(votes, seed, size):
            raise WorkError(
                f"codec {spec.text}: seed {seed} does not give the views of these labels; leave "
                "out `seed`, and they are stored"
            )
        return EncodedVotes(
            *common,
            seed=seed,
            views_digest=digest_views(*drawn),
            parts=votes.parts,
            mix=mix_of(votes.mixes),
        )
    return EncodedVotes(
        *common,
        ids=kept[0],
        views=kept[1],
        mixes=kept[2],
        parts=votes.parts,
        mix=mix_of(votes.mixes),
    )


def decode_votes(encoded: EncodedVotes, images: Tensor) -> StoredVotes:
    """The labels that students train on: one for every position of every training epoch.

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
    except UnknownCodecError as error:
        raise WorkError(
            f"encoded labels: {error}; for a codec of your own, add --allow-code MODULE, or in "
            "Python, register it with projectors.codecs.register"
        ) from None
    except ProjectorError as error:
        raise WorkError(f"encoded labels: {error}") from None


def _decode_labels(encoded: EncodedVotes, images: int, size: Size) -> StoredVotes:
    container = unpack(encoded.payload)
    register_own(container.config)
    spec = container.spec
    if spec.images != images:
        raise WorkError(
            f"encoded labels of {spec.images} images, but the set has {images}; encode them again"
        )
    check_memory(spec.epochs * spec.images, spec.classes)
    labels = decode(encoded.payload)
    codec = get_codec(container.config)
    drawn = _views(encoded, spec, codec, size)
    if labels.sources is not None and isinstance(codec, Pruned):
        drawn = expand_views(codec.pool, spec, drawn, labels.sources)
    ids, views, mixes = drawn
    logits = labels.logits.half()
    if not bool(logits.isfinite().all()):
        largest = torch.finfo(torch.float16).max
        raise WorkError(
            f"encoded labels: codec {codec.codec_id} gives logits that half precision does not "
            f"hold, which ends at {largest:,.0f}; clamp them in its decode"
        )
    return StoredVotes(
        ids,
        views,
        _by_position(logits, ids) if encoded.by_image else logits,
        encoded.families,
        encoded.batch_size,
        labels.temperature,
        encoded.batch_statistics,
        mixes,
        encoded.parts,
    )


def _views(encoded: EncodedVotes, spec: LabelSpec, codec: object, size: Size) -> DrawnViews:
    """Order, views and mixes of the kept labels, stored or drawn again."""
    pool = codec.pool if isinstance(codec, Pruned) else None
    kept = spec if pool is None else pool.spec(spec)
    if encoded.ids is not None and encoded.views is not None:
        drawn: DrawnViews = (encoded.ids, encoded.views, encoded.mixes)
    else:
        drawn = encoded.plan(spec.images, size).draw(encoded.seed or 0, spec.epochs)
        if digest_views(*drawn) != encoded.views_digest:
            raise WorkError(
                f"seed {encoded.seed} does not give the views of the encoded labels on this "
                "machine; use the version of torch that made them, or ask for stored views"
            )
        drawn = drawn if pool is None else take_views(pool, drawn)
    ids, views, mixes = drawn
    shape = (kept.epochs, kept.images)
    if (
        ids.shape != shape
        or views.shape[:2] != shape
        or int(ids.max()) >= spec.images
        or (mixes is not None and mixes.partners.shape != shape)
    ):
        raise WorkError("the views of the encoded labels do not fit them; encode them again")
    return drawn


def _permutations(ids: Tensor) -> bool:
    """Whether every epoch has every image once."""
    ordered = ids.sort(dim=1).values
    return bool((ordered == torch.arange(ids.shape[1])).all())


def _by_image(logits: Tensor, ids: Tensor) -> Tensor:
    """Labels [e, n, k] in the order of the images: label [e, ids[e, i]] is that of position i."""
    return torch.zeros_like(logits).scatter_(1, ids[..., None].expand_as(logits), logits)


def _by_position(logits: Tensor, ids: Tensor) -> Tensor:
    """The inverse of `_by_image`."""
    return logits.gather(1, ids[..., None].expand_as(logits))


def encode_one(content: SetFile, spec: str, networks: LabelSources) -> EncodedVotes:
    """Encode the votes of a set by the codec of a spec.

    Raises:
        WorkError: if the set has no votes, they do not fit the codec, or a network is missing.
    """
    _, _, h, w = content.images.shape
    seed = int(content.manifest["seed"])
    votes, parsed = full_votes(content), parse_codec(spec)
    if "network" not in parsed.parts:
        return encode_votes(votes, parsed, seed, (h, w))
    try:
        return encode_network(votes, parsed, seed, networks, gather(content.seen_images))
    except CodecError as error:
        raise WorkError(f"codec {spec}: {error}") from None


def full_votes(content: SetFile) -> StoredVotes:
    """The votes of a set in full, in memory.

    Raises:
        WorkError: if it has none.
    """
    if content.votes is None:
        raise WorkError("the set has no voted labels in full; run the stage relabel first")
    return replace(content.votes, logits=content.votes.whole)
