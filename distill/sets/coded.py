"""Images of a set as `synth.coding` keeps them: pixels in few bytes, decoded when they are read."""

from __future__ import annotations

import importlib.util

from torch import Tensor

from distill.data import AnyPreprocess
from synth.coding import CODERS, CodingError, Shape, open_images, unpack_images


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
    pixels, _ = unpack_images(payload)
    return preprocess(pixels).contiguous()
