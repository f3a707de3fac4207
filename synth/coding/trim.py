"""Coded images made to fit: numbers are moved to where they cost fewer bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from synth.coding.base import ImageCoding
from synth.coding.container import pack_images
from synth.coding.errors import CodingError

# Mean move of a number: at first, by how much it grows from one to the next, and at most.
_FIRST_MOVE, _GROWTH, _LARGEST_MOVE = 0.002, 1.2, 0.1

_MOVES = 300


def trim(
    coding: ImageCoding, parameters: Tensor, limit: int, coder: str = "arithmetic"
) -> tuple[Tensor, bytes]:
    """Parameters near these whose coded images take at most `limit` bytes.

    All are moved down the slope of their bits, in small steps, until they fit. Those that lie near
    the middle between two integers are the first to take the cheaper one, so that little of the
    images is lost: like the dead zone of a quantiser, for every coding.

    Args:
        coding: of the parameters.
        parameters: as from `ImageCoding.start`.
        limit: most bytes of `pack_images`.
        coder: one of `CODERS`.

    Returns:
        The parameters, which are the same where they fit, and their bytes.

    Raises:
        CodingError: if they cannot be made to fit.
    """
    payload = pack_images(coding, parameters, coder)
    first, move = len(payload), _FIRST_MOVE
    for _ in range(_MOVES):
        if len(payload) <= limit:
            return parameters, payload
        stored = parameters.detach().requires_grad_()
        bits = coding.bits(stored)
        if not bits.requires_grad:
            break
        (slope,) = torch.autograd.grad(bits, stored)
        parameters = parameters - move * slope / slope.abs().mean().clamp_min(1e-12)
        payload = pack_images(coding, parameters, coder)
        move = min(move * _GROWTH, _LARGEST_MOVE)
    if len(payload) <= limit:
        return parameters, payload
    raise CodingError(
        f"coded images of {first:,} bytes do not fit into {limit:,}: allow more bytes, code them "
        "more coarsely, or keep fewer"
    )
