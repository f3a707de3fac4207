"""What a sweep over ways to keep images compares, checked before anything long is begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import bincount

from distill.errors import RecipeError, WorkError
from distill.evaluation.sweep.jobs import FULL, HARD
from distill.recipes.build import build_codec, build_coding
from distill.recipes.specs import parse_codec, parse_coding
from distill.recipes.tables.relabel import RelabelTable
from distill.run.context import Context
from distill.sets.set_file import SetFile
from distill.teachers.loading import has_committee
from projectors.codecs import CodecError, LabelSpec

LEARNED, VOTES = "learned", "votes"

_LEARNED_BY = LEARNED + "+"


@dataclass(frozen=True)
class ImageSweepOptions:
    """What a sweep over ways to keep images was asked to compare.

    Attributes:
        codings: specs of ways to keep images.
        labels: hard, learned (as the set keeps them), learned+CODEC (the same in the container of
            a label codec), full-fp16 (the committee's votes), or codecs of these votes; empty for
            hard, and for learned where the set has them.
        images_per_class: stored images that are kept of each class, the first ones; empty for all.
        controls: at the bytes of which points coded real images are trained on: of "all", or of
            the "ends", the fewest and the most.
    """

    codings: Sequence[str]
    labels: Sequence[str] = ()
    images_per_class: Sequence[int] = ()
    controls: Literal["all", "ends"] = "all"

    def __post_init__(self) -> None:
        """Refuse what is wrong for any set.

        Raises:
            RecipeError: for the name or an option of a coding or codec, or for no image a class.
        """
        for coding in self.codings:
            parse_coding(coding)
        for labels in self.labels:
            codec = learned_codec(labels) or (labels if is_voted(labels) else None)
            if codec is not None:
                _check_codec(labels, codec)
        for ipc in self.images_per_class:
            if ipc < 1:
                raise RecipeError(f"{ipc} images per class; name numbers from 1 on")


def learned_codec(labels: str) -> str | None:
    """The codec of learned labels that are named learned+CODEC."""
    return labels.removeprefix(_LEARNED_BY) if labels.startswith(_LEARNED_BY) else None


def is_voted(labels: str) -> bool:
    """Whether these are a committee's votes, in full or in fewer bytes."""
    return label_source(labels) not in (HARD, LEARNED)


def label_source(labels: str) -> str:
    """What an evaluation calls the source of such labels."""
    if labels == LEARNED or learned_codec(labels) is not None:
        return LEARNED
    return VOTES if labels == FULL else labels


def _check_codec(labels: str, codec: str) -> None:
    """Refuse a codec that does not exist, or is none of the labels it is asked for."""
    spec = parse_codec(codec)
    if not is_voted(labels) and set(spec.parts) != {"labels"}:
        raise RecipeError(
            f"labels {labels}: learned labels have neither views nor label epochs; name a codec of "
            "labels alone, such as learned+quantised:step=0.25"
        )
    if "network" not in spec.parts:
        build_codec(spec, 1)


def complete(context: Context, content: SetFile, options: ImageSweepOptions) -> ImageSweepOptions:
    """The options for a set, each thing once and defaults filled in.

    Args:
        context: its committee, if there is one, votes.
        content: the set.
        options: as they were asked for.

    Raises:
        RecipeError: for a coding or codec that the set's images and labels do not allow, or more
            images of a class than there are.
        WorkError: for labels that the set does not have.
    """
    most = int(bincount(content.hard).max())
    default = [HARD] if content.learned is None else [HARD, LEARNED]
    whole = replace(
        options,
        codings=_distinct(options.codings),
        labels=_distinct(options.labels or default),
        images_per_class=sorted(set(options.images_per_class or [most])),
    )
    if whole.images_per_class[-1] > most:
        raise RecipeError(
            f"{whole.images_per_class[-1]} images per class, but the set stores at most {most} of "
            f"a class; name numbers up to {most}"
        )
    _, c, h, w = content.images.shape
    for ipc in whole.images_per_class:
        count = int(bincount(content.hard).clamp(max=ipc).sum())
        for coding in whole.codings:
            build_coding(coding, (count, c, h, w))
    for labels in whole.labels:
        _check_labels(context, content, labels)
    return whole


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _check_labels(context: Context, content: SetFile, labels: str) -> None:
    """Refuse labels that the set does not have, or that do not fit their codec."""
    images, classes = len(content.seen_hard), len(content.manifest["class_names"])
    table = context.recipe.relabel or RelabelTable()
    if is_voted(labels) and not has_committee(context):
        raise WorkError(
            f"labels {labels} are votes on the coded images, but there is no committee.h5 beside "
            "the set; put it there, or name hard or learned labels"
        )
    if label_source(labels) == LEARNED and content.learned is None:
        raise WorkError(f"labels {labels}, but the set has no learned labels; name hard ones")
    codec = learned_codec(labels) or (labels if is_voted(labels) and labels != FULL else None)
    if codec is None or "network" in parse_codec(codec).parts:
        return
    epochs = table.epochs if is_voted(labels) else 1
    try:
        build_codec(parse_codec(codec), 1).body_bytes(LabelSpec(epochs, images, classes))
    except CodecError as error:
        raise RecipeError(f"labels {labels}: {error}") from None
