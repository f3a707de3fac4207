"""Codecs by name, and decoding of any container."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload
from projectors.codecs.container import unpack
from projectors.codecs.dense import Dense
from projectors.codecs.errors import CodecError, UnknownCodecError
from projectors.codecs.hard import Hard
from projectors.codecs.labels import Labels
from projectors.codecs.lowrank import LowRank
from projectors.codecs.pruned import Pruned
from projectors.codecs.quantised import Quantised
from projectors.codecs.roots import Roots
from projectors.codecs.sampled import SampledTopK
from projectors.codecs.topk import TopK
from projectors.codecs.twoscalar import TwoScalars

CODECS: dict[str, type[Any]] = {
    codec.codec_id: codec
    for codec in (Dense, TopK, SampledTopK, Pruned, LowRank, Quantised, Roots, TwoScalars, Hard)
}


def get_codec(config: dict[str, Any]) -> LabelCodec:
    """The codec that a config describes.

    >>> get_codec({"id": "topk", "k": 5})
    TopK(k=5, tail='marginal')

    Args:
        config: its id and its fields, as `LabelCodec.config` gives them.

    Raises:
        UnknownCodecError: if no codec has that id.
        CodecError: for a field that is missing, unknown or out of range.
    """
    if not isinstance(config, dict):
        raise CodecError(f"{config!r} is no codec's config; give a table with an id")
    values = dict(config)
    codec_id = values.pop("id", None)
    if not isinstance(codec_id, str) or codec_id not in CODECS:
        raise UnknownCodecError(
            f"no codec is called {codec_id!r}; choose one of {', '.join(sorted(CODECS))}",
            str(codec_id),
        )
    codec = CODECS[codec_id]
    known = {field.name: field for field in fields(codec)}
    wrong = sorted(values.keys() - known.keys())
    missing = [name for name in known if name not in values and known[name].default is MISSING]
    if wrong or missing:
        raise CodecError(
            f"codec {codec_id}: unknown fields {wrong}, missing fields {missing}; "
            f"its fields are {sorted(known)}"
        )
    if isinstance(values.get("inner"), dict):
        if values["inner"].get("id") == codec_id:
            raise CodecError(f"a codec {codec_id} inside itself; nest another one")
        values["inner"] = get_codec(values["inner"])
    return codec(**values)


def decode(payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
    """The labels of any container, by whichever codec it names.

    Args:
        payload: a container.
        limit: most bytes that the decoded logits may take.

    Raises:
        UnknownCodecError: if its codec is not known here.
        CodecError: for bytes that are cut short, damaged or foreign, or a shape that is false.
    """
    return get_codec(unpack(payload).config).decode(payload, limit=limit)
