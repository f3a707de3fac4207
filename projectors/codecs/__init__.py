"""Codecs of stored soft labels: one contract from full float16 down to hard labels.

labels = Labels(logits, temperature=20.0)            # [e, n, k]
codec = Pruned(TopK(k=25), ratio=0.9, unit="epoch")  # LPQLD
payload = codec.encode(labels)                       # bytes, with header and checksum
decode(payload).probabilities()                      # [e, n, k], whichever codec it was
"""

import sys

from projectors.codecs.base import DECODED_LIMIT, LabelCodec
from projectors.codecs.container import Container, pack, unpack
from projectors.codecs.dense import Dense
from projectors.codecs.errors import CodecError, UnknownCodecError
from projectors.codecs.hard import Hard
from projectors.codecs.labels import Labels, LabelSpec, Sources
from projectors.codecs.lowrank import LowRank
from projectors.codecs.pool import Pool
from projectors.codecs.product import ProductQuantised
from projectors.codecs.pruned import Pruned
from projectors.codecs.quantised import Quantised
from projectors.codecs.registry import (
    CODECS,
    decode,
    find_codec,
    get_codec,
    register,
    register_modules,
)
from projectors.codecs.roots import Roots
from projectors.codecs.sampled import SampledTopK
from projectors.codecs.sizes import encoded_bytes, imagenet_label_bytes
from projectors.codecs.topk import TopK
from projectors.codecs.twoscalar import TwoScalars
from projectors.codecs.weights import Weights

__all__ = [
    "CODECS",
    "DECODED_LIMIT",
    "CodecError",
    "Container",
    "Dense",
    "Hard",
    "LabelCodec",
    "LabelSpec",
    "Labels",
    "LowRank",
    "Pool",
    "ProductQuantised",
    "Pruned",
    "Quantised",
    "Roots",
    "SampledTopK",
    "Sources",
    "TopK",
    "TwoScalars",
    "UnknownCodecError",
    "Weights",
    "decode",
    "encoded_bytes",
    "find_codec",
    "get_codec",
    "imagenet_label_bytes",
    "pack",
    "register",
    "unpack",
]

register_modules(sys.modules[__name__])
