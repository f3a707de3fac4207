"""Codecs by name, and decoding of any container.

Every module of this folder is looked through for codecs, so that a new one needs no line here.
Packages bring theirs as entry points of the group `limbeck.codecs`, by the codec's id.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from projectors.codecs.base import DECODED_LIMIT, LabelCodec, Payload
from projectors.codecs.container import unpack
from projectors.codecs.errors import CodecError, UnknownCodecError
from projectors.codecs.labels import Labels

GROUP = "limbeck.codecs"

# Filled when the package is imported; see `register`.
CODECS: dict[str, type[Any]] = {}


def register(codec: type[Any]) -> type[Any]:
    """Make a codec known to `get_codec` and `decode`; returns it, so that it can decorate a class.

    Raises:
        CodecError: if its id is that of another codec.
    """
    known = CODECS.setdefault(codec.codec_id, codec)
    if known is not codec:
        raise CodecError(
            f"codec {codec.codec_id} is {known.__module__}.{known.__name__} already; give "
            f"{codec.__name__} another codec_id"
        )
    return codec


def register_modules(package: ModuleType) -> None:
    """Register the codecs of all modules of a package."""
    for found in pkgutil.iter_modules(package.__path__):
        for codec in codecs_of(importlib.import_module(f"{package.__name__}.{found.name}")):
            register(codec)


def codecs_of(module: ModuleType) -> Iterator[type[Any]]:
    """The codecs that a module defines: dataclasses with an id."""
    for found in vars(module).values():
        if not isinstance(found, type) or found.__module__ != module.__name__:
            continue
        if is_dataclass(found) and hasattr(found, "codec_id"):
            yield found


def find_codec(codec_id: str) -> type[Any]:
    """The codec of an id: one of the package, or one that an installed package brings.

    Raises:
        UnknownCodecError: if there is none, or its package cannot be imported.
    """
    if codec_id in CODECS:
        return CODECS[codec_id]
    for point in entry_points(group=GROUP, name=codec_id):
        package = point.dist.name if point.dist else point.module
        try:
            found = point.load()
        except Exception as error:  # noqa: BLE001 - a foreign module may raise anything
            reason = " ".join(str(error).split())[:200]
            raise UnknownCodecError(
                f"codec {codec_id} of the package {package} cannot be imported "
                f"({type(error).__name__}: {reason}); install what it needs",
                codec_id,
            ) from None
        if getattr(found, "codec_id", None) != codec_id:
            raise UnknownCodecError(
                f"the package {package} brings a codec {codec_id}, whose codec_id is "
                f"{getattr(found, 'codec_id', None)!r}; ask its authors for the same name",
                codec_id,
            )
        return register(found)
    raise UnknownCodecError(
        f"no codec is called {codec_id!r}; choose one of {', '.join(sorted(CODECS))}", codec_id
    )


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
    codec = find_codec(codec_id if isinstance(codec_id, str) else str(codec_id))
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
    container = unpack(payload)
    codec = get_codec(container.config)
    with _named(codec):
        labels = codec.decode(payload, limit=limit)
        found = labels.logits.shape
    wanted = container.spec.epochs, container.spec.images, container.spec.classes
    if tuple(found) != wanted:
        raise CodecError(
            f"codec {codec.codec_id} gives labels of shape {list(found)}, not {list(wanted)}; mend "
            "its decode"
        )
    return labels


def encode(codec: LabelCodec, labels: Labels) -> bytes:
    """The container of labels in a codec, which may be a user's own.

    Raises:
        CodecError: for labels that do not fit the codec, or a codec that gives no container of
            them.
    """
    with _named(codec):
        payload = codec.encode(labels)
        container = unpack(payload)
    # As the container keeps it: JSON has lists where a config may have tuples.
    config = json.loads(json.dumps(codec.config()))
    if container.config != config or container.spec != labels.spec:
        raise CodecError(
            f"codec {codec.codec_id} gives a container of {container.config}, {container.spec}, "
            f"for labels of {labels.spec}; mend its encode"
        )
    return payload


@contextmanager
def _named(codec: LabelCodec) -> Iterator[None]:
    """Name a codec of another package or module whose code raises what no codec should."""
    home = type(codec).__module__
    try:
        yield
    except (CodecError, MemoryError):
        raise
    except Exception as error:
        if home.partition(".")[0] == __name__.partition(".")[0]:
            raise
        reason = " ".join(str(error).split())[:200]
        raise CodecError(
            f"codec {codec.codec_id}: {type(error).__name__}: {reason}; mend {home}"
        ) from error
