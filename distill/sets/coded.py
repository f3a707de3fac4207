"""Images and learned labels of a set in few bytes, which are decoded when they are read.

A coding is written as a spec, such as `rounded:depth=2` or `frequency:step=0.3:block=7`: a name of
`synth.coding.CODINGS`, and the settings that differ from its defaults.
"""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.data import AnyPreprocess
from distill.store.hdf5 import put, read_array
from projectors.codecs import Dense, LabelCodec, Labels, Quantised, decode
from synth.coding import (
    CODERS,
    CODINGS,
    CodingError,
    ImageCoding,
    Shape,
    open_images,
    unpack_images,
)

# For learned labels, from the most bytes to the fewest.
_LABEL_CODECS: tuple[LabelCodec, ...] = (
    Dense("float16"),
    Quantised(0.1),
    Quantised(0.25),
    Quantised(0.5),
)


def best_coder() -> str:
    """The coder of the fewest bytes that this machine has: "arithmetic", else "lzma"."""
    arithmetic, without_extra = CODERS
    return arithmetic if importlib.util.find_spec("constriction") is not None else without_extra


def coded_shape(payload: bytes) -> Shape:
    """[n, c, h, w] of coded images, from their checked header; nothing is decoded.

    Raises:
        CodingError: if the payload is foreign, damaged or promises too much.
    """
    return open_images(payload)[0].shape


def decode_coded(payload: bytes, preprocess: AnyPreprocess, count: int) -> Tensor:
    """The images of a payload of `synth.coding.pack_images`, as students are trained on them.

    Args:
        payload: coded pixels in [0, 1].
        preprocess: what the pixels go through: normalisation, or whitening.
        count: n, images that there must be; checked before anything is decoded.

    Returns:
        float32 [n, c, h, w].

    Raises:
        CodingError: if the payload is foreign, damaged, of other images, or coded by a library
            that is not installed.
        DataError: if the images have other channels than the preprocessing.
    """
    coded = coded_shape(payload)[0]
    if coded != count:
        raise CodingError(f"there are {coded} coded images for {count} hard labels")
    return preprocess(_pixels(payload)).contiguous()


# A command may read the same set several times, and a second of decoding is some hundred images.
@lru_cache(maxsize=1)
def _pixels(payload: bytes) -> Tensor:
    return unpack_images(payload)[0]


def build_coding(spec: str, shape: Shape, groups: int = 1) -> ImageCoding:
    """The coding of a spec, for images of a shape [n, c, h, w].

    Args:
        spec: see the head of this module.
        shape: of the images.
        groups: runs of equal length of images that are alike, see `class_runs`; used by codings
            that can, where a run has more than one image.

    Raises:
        CodingError: for an unknown coding or setting, or one that does not fit the images.
    """
    name, *settings = spec.split(":")
    if name not in CODINGS:
        raise CodingError(
            f"coding {spec}: there is none {name!r}; choose from {', '.join(CODINGS)}"
        )
    kinds = {field.name: type(field.default) for field in _settings(CODINGS[name])}
    found: dict[str, Any] = {}
    for part in settings:
        key, _, value = part.partition("=")
        if key not in kinds:
            known = ", ".join(kinds) or "none"
            raise CodingError(f"coding {spec}: there is no setting {key!r}; there are: {known}")
        try:
            found[key] = kinds[key](value)
        except ValueError:
            raise CodingError(f"coding {spec}: {key} is {value!r}; it must be a number") from None
    if 1 < groups < shape[0] and "groups" in kinds:
        found.setdefault("groups", groups)
    make: Any = CODINGS[name]
    coding: ImageCoding = make(tuple(shape), **found)
    return coding


def class_runs(hard: Tensor, classes: int) -> int:
    """The number of classes where [n] lists each as often and in order, else 1."""
    runs = torch.arange(classes).repeat_interleave(max(1, len(hard) // classes))
    return classes if torch.equal(hard.cpu(), runs) else 1


def coding_spec(coding: ImageCoding) -> str:
    """The spec of a coding, see `build_coding`."""
    name = next(name for name, kind in CODINGS.items() if isinstance(coding, kind))
    values = {field.name: getattr(coding, field.name) for field in _settings(type(coding))}
    defaults = {field.name: field.default for field in _settings(type(coding))}
    return name + "".join(
        f":{key}={value}" for key, value in values.items() if value != defaults[key]
    )


def _settings(kind: Any) -> list[Any]:
    """The fields of a coding but for the shape of its images."""
    return [field for field in fields(kind) if field.name != "shape"]


def pack_labels(learned: Tensor, most: int) -> bytes | None:
    """Learned label logits [m, k] in at most `most` bytes, as near as that allows; None if not.

    They are stored in halves, or on a grid of steps of 0.1 to 0.5.
    """
    labels = Labels(learned[None].float().cpu())
    for codec in _LABEL_CODECS:
        payload = codec.encode(labels)
        if len(payload) <= most:
            return payload
    return None


def unpack_labels(payload: bytes) -> Tensor:
    """float32 [m, k] of `pack_labels`.

    Raises:
        CodecError: if the payload is foreign or damaged.
    """
    return decode(payload).logits[0].float()


def put_bytes(group: h5py.Group, name: str, payload: bytes) -> None:
    """Store a payload as uint8, with checksums."""
    put(group, name, np.frombuffer(payload, np.uint8), None)


def get_bytes(group: h5py.Group, name: str) -> bytes | None:
    """What `put_bytes` stored, or None if there is nothing of that name."""
    return read_array(group, name).tobytes() if name in group else None
