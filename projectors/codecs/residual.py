"""A network's labels, with stored ones where the network's error is largest."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projectors.codecs.base import LabelCodec
from projectors.codecs.container import inflate, seal, unseal
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import Labels, check_real
from projectors.codecs.registry import decode

_HEADER = struct.Struct("<QQ")

# The largest expansion of deflate.
_MAX_EXPANSION = 1032


@dataclass(frozen=True)
class Residual:
    """Stored labels and where they go.

    Attributes:
        mask: [e, n] bool, labels that are stored.
        logits: [m, k] of those labels, in the order of the mask.
    """

    mask: Tensor
    logits: Tensor

    def over(self, logits: Tensor) -> Tensor:
        """A network's labels [e, n, k], replaced by the stored ones.

        Raises:
            CodecError: if the labels have another shape.
        """
        if logits.shape[:2] != self.mask.shape or logits.shape[2] != self.logits.shape[1]:
            raise CodecError(
                f"stored labels for {list(self.mask.shape)} views, but the network labelled "
                f"{list(logits.shape[:2])}; encode them again"
            )
        merged = logits.clone()
        merged[self.mask] = self.logits.to(merged.dtype)
        return merged


def choose_residual(exact: Tensor, given: Tensor, temperature: float, share: float) -> Tensor:
    """Mask [e, n] of the `share` of labels on which a network's error is largest.

    The error is KL(exact || given) at the temperature; at least one label is chosen.

    Args:
        exact: logits [e, n, k].
        given: logits [e, n, k] of the network.
        temperature: at which students read both.
        share: in (0, 1].

    Raises:
        CodecError: for another share.
    """
    check_real("residual", share, 0.0, 1.0 + 1e-9)
    target = torch.log_softmax(exact.double() / temperature, dim=-1)
    prediction = torch.log_softmax(given.double() / temperature, dim=-1)
    divergence = (target.exp() * (target - prediction)).sum(dim=-1)
    count = max(1, round(share * divergence.numel()))
    mask = torch.zeros(divergence.numel(), dtype=torch.bool)
    mask[divergence.flatten().topk(count).indices] = True
    return mask.reshape(divergence.shape)


def pack_residual(
    network: bytes, exact: Tensor, temperature: float, mask: Tensor, codec: LabelCodec
) -> bytes:
    """A container of a network's payload and of the labels that the mask chose.

    Args:
        network: payload of the network.
        exact: logits [e, n, k].
        temperature: at which students read them.
        mask: [e, n] bool.
        codec: of the chosen labels.

    Raises:
        CodecError: if those labels do not fit the codec.
    """
    chosen = codec.encode(Labels(exact[mask][None], temperature))
    bits = zlib.compress(np.packbits(mask.numpy()).tobytes(), 9)
    document = {"network": "residual", "shape": list(mask.shape)}
    return seal(document, _HEADER.pack(len(network), len(bits)) + network + bits + chosen)


def unpack_residual(payload: bytes) -> tuple[bytes, Residual]:
    """The network's payload, and the labels that are stored besides.

    Raises:
        CodecError: for bytes that are cut short, damaged or foreign.
    """
    document, body = unseal(payload)
    try:
        epochs, images = (int(side) for side in document["shape"])
        network_bytes, mask_bytes = _HEADER.unpack(body[: _HEADER.size])
        start = _HEADER.size + network_bytes
        network = bytes(body[_HEADER.size : start])
        most = len(body) * _MAX_EXPANSION
        raw = inflate(body[start : start + mask_bytes], most, "a mask")
        if min(epochs, images) < 1 or len(raw) != -(-epochs * images // 8):
            raise ValueError(f"{len(raw)} bytes for {epochs} x {images} views")
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=epochs * images)
    except (KeyError, ValueError, TypeError, OverflowError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise CodecError(f"broken residual labels ({reason}); encode them again") from error
    mask = torch.from_numpy(bits.astype(bool)).reshape(epochs, images)
    logits = decode(body[start + mask_bytes :]).logits[0]
    if len(logits) != int(mask.sum()):
        raise CodecError(f"{len(logits)} residual labels for {int(mask.sum())}; encode them again")
    return network, Residual(mask, logits)
