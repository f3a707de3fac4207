"""Images and learned labels of a set in few bytes, which are decoded when they are read."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import h5py
import numpy as np
import torch
from torch import Tensor

from distill.data import AnyPreprocess
from distill.store.hdf5 import put, read_array
from projectors.codecs import (
    Dense,
    LabelCodec,
    Labels,
    ProductQuantised,
    Quantised,
    decode,
    get_codec,
    unpack,
)
from projectors.codecs.registry import encode
from synth.coding import (
    CODERS,
    CodingError,
    ImageCoding,
    Shape,
    name_of,
    open_images,
    settings_of,
    unpack_images,
)

# For learned labels, from the finest to the coarsest.
_LABEL_CODECS: tuple[LabelCodec, ...] = (
    Dense("float16"),
    Quantised(0.1),
    Quantised(0.25),
    Quantised(0.5),
    ProductQuantised(parts=4, words=64),
    ProductQuantised(parts=3, words=32),
    ProductQuantised(parts=2, words=32),
    ProductQuantised(parts=2, words=16),
    ProductQuantised(parts=1, words=32),
)

# What a coder takes beside the estimate that is learned with; `trim` sees to the rest.
OVER_ESTIMATE = {"arithmetic": 1.005, "lzma": 1.35}


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


def class_runs(hard: Tensor, classes: int) -> int:
    """The number of classes where [n] lists each as often and in order, else 1."""
    runs = torch.arange(classes).repeat_interleave(max(1, len(hard) // classes))
    return classes if torch.equal(hard.cpu(), runs) else 1


def coding_spec(coding: ImageCoding) -> str:
    """The spec, see `distill.recipes.build.build_coding`, from which a coding is made again."""
    settings = settings_of(coding)
    given = {name: value for name, value in settings.items() if name not in ("shape", "groups")}
    return name_of(coding) + "".join(f":{name}={value}" for name, value in given.items())


def pack_labels(learned: Tensor, most: int) -> bytes | None:
    """Learned label logits [m, k] in at most `most` bytes, as near as that allows; None if not.

    They are stored in halves, on a grid of steps of 0.1 to 0.5, or as words of codebooks that are
    learned on them.
    """
    labels = Labels(learned[None].float().cpu())
    for codec in _LABEL_CODECS:
        payload = codec.encode(labels)
        if len(payload) <= most:
            return payload
    return None


def pack_like(payload: bytes, learned: Tensor) -> bytes:
    """Learned label logits [m, k] in the codec of another payload of such labels."""
    return encode(get_codec(unpack(payload).config), Labels(learned[None].float().cpu()))


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
