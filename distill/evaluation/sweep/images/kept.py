"""A part of a set, its images coded, and its labels in the bytes that they are counted with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from distill.errors import WorkError
from distill.evaluation.sweep.images.jobs import STORED, ImageJob, ImageOutcome
from distill.evaluation.sweep.images.options import (
    LEARNED,
    is_voted,
    label_source,
    learned_codec,
)
from distill.evaluation.sweep.jobs import FULL
from distill.recipes.build import build_codec
from distill.recipes.specs import parse_codec
from distill.recipes.tables.relabel import RelabelTable
from distill.run.context import Context
from distill.sets.coded_set import pack_like, unpack_labels
from distill.sets.compress import code_set
from distill.sets.cost import count_bytes
from distill.sets.label_encoding import encode_one
from distill.sets.network_labels import LabelSources
from distill.sets.order import first_places
from distill.sets.set_file import SetFile, read_set, write_set
from distill.store.files import digest_json
from distill.teachers.loading import load_committee
from distill.teachers.voting import use_batch_statistics, vote_views
from projectors.codecs import CodecError, LabelCodec, Labels
from projectors.codecs.registry import encode
from synth.images import gather


def kept_file(folder: Path, coding: str, ipc: int) -> Path:
    """The part of a set under a coding, with the committee's votes where they are asked for."""
    return folder / f"kept-{digest_json([coding, ipc])[:12]}.h5"


def make_kept(
    context: Context, content: SetFile, folder: Path, jobs: Sequence[ImageJob], key: str
) -> None:
    """Write the set of each coding and number of images, unless it is there.

    Args:
        context: whose committee votes where jobs ask for votes.
        content: the set.
        folder: of the sweep.
        jobs: what will be trained.
        key: of the sweep; files of another are written anew.
    """
    voted = any(is_voted(job.labels) for job in jobs)
    kept = list(dict.fromkeys((job.coding, job.ipc) for job in jobs))
    with context.progress.task("code images", len(kept)) as advance:
        for coding, ipc in kept:
            context.stop.check()
            path = kept_file(folder, coding, ipc)
            made = read_set(path) if path.is_file() else None
            current = made is not None and made.manifest["recipe_digest"] == key
            if made is None or not current or (voted and made.votes is None):
                write_set(path, _kept(context, content, (coding, ipc), key, voted=voted))
            advance(f"{coding} {ipc}")


def _kept(
    context: Context, content: SetFile, kept: tuple[str, int], key: str, *, voted: bool
) -> SetFile:
    coding, ipc = kept
    votes = None
    if coding == STORED:
        made, votes = replace(content, encoded={}, measured=None, votes=None), content.votes
    else:
        made = code_set(first_images(content, ipc), coding)
    if voted and votes is None:
        table = context.recipe.relabel or RelabelTable()
        committee = load_committee(context)
        votes = vote_views(
            context,
            table,
            committee,
            context.on_device(made.seen_images),
            batch_statistics=use_batch_statistics(context, table, committee),
        )
    manifest = {**made.manifest, "recipe_digest": key}
    return replace(made, manifest=manifest, votes=votes if voted else None)


def first_images(content: SetFile, ipc: int) -> SetFile:
    """The first `ipc` stored images of each class, or as many as it has, in the set's order.

    Hard and learned labels go with their images; voted ones, which belong to views of all images,
    are left out. Images that a tower refined take the place of the stored ones.
    """
    places = first_places(content.hard, ipc)
    stored = content.images if content.refined is None else content.refined
    learned, payload = content.learned, content.coded_labels
    if learned is not None:
        learned = learned.view(len(content.images), -1, learned.shape[1])[places].flatten(0, 1)
        if payload is not None and len(places) < len(content.images):
            # The same codec for fewer labels.
            payload = pack_like(payload, learned)
            learned = unpack_labels(payload)
    return replace(
        content,
        images=gather(stored)[places],
        hard=content.hard[places],
        learned=learned,
        coded_labels=payload,
        refined=None,
        coded=None,
        votes=None,
        encoded={},
        measured=None,
    )


def labelled(
    content: SetFile, labels: str, sources: LabelSources, original: SetFile
) -> tuple[SetFile, ImageOutcome]:
    """A kept set with its labels as they are counted, and what it costs; no accuracy yet.

    Args:
        content: as `make_kept` wrote it.
        labels: as of `ImageSweepOptions`.
        sources: networks that a codec may ship.
        original: the images before they were coded.
    """
    codec = learned_codec(labels)
    if codec is not None and content.learned is not None:
        with _named(labels):
            payload = _pack(build_codec(parse_codec(codec), 1), content.learned)
        content = replace(content, learned=unpack_labels(payload), coded_labels=payload)
    elif label_source(labels) != LEARNED:
        content = replace(content, learned=None, coded_labels=None)
    source = label_source(labels)
    if is_voted(labels) and labels != FULL:
        content = replace(content, encoded={labels: encode_one(content, labels, sources)})
    counted = count_bytes(content)
    total = counted["totals"][source]
    shared = counted["images"] + counted["preprocess"] + counted["settings"]
    external = content.encoded[labels].external if labels in content.encoded else 0
    error = _error(content, original)
    cost = ImageOutcome(0.0, 0.0, counted["images"], total - shared, total, external, error)
    return content, cost


def _error(content: SetFile, original: SetFile) -> float:
    """Mean squared difference of the pixels that students see."""
    seen, before = (
        part.preprocess.inverse(gather(part.seen_images)) for part in (content, original)
    )
    return float((seen - before).square().mean())


def _pack(codec: LabelCodec, learned: Tensor) -> bytes:
    return encode(codec, Labels(learned[None].float().cpu()))


@contextmanager
def _named(labels: str) -> Iterator[None]:
    try:
        yield
    except CodecError as error:
        raise WorkError(f"labels {labels}: {error}") from None
