"""Names of labels in recipes: sources that students learn from, codecs, aggregations of votes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from distill.codec_specs import parse_codec
from distill.errors import RecipeError

LABEL_SOURCES = ("hard", "learned", "votes", "projector")


def _codec(text: str) -> str:
    try:
        return parse_codec(text).text
    except RecipeError as error:
        raise ValueError(str(error)) from None


def _label_source(name: str) -> str:
    if name in LABEL_SOURCES:
        return name
    try:
        return parse_codec(name).text
    except RecipeError as error:
        sources = ", ".join(repr(source) for source in LABEL_SOURCES)
        raise ValueError(f"it should be {sources}, or a codec of the set: {error}") from None


Aggregate = Literal[
    "logits",
    "probabilities",
    "standard",
    "softmax",
    "dawid-skene",
    "glad",
    "mace",
    "wawa",
    "zero-based-skill",
]
CodecText = Annotated[str, AfterValidator(_codec)]
LabelSource = Annotated[str, AfterValidator(_label_source)]
