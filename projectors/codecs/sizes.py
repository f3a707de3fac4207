"""Bytes of encoded labels, computed from the formulas of the codecs."""

from __future__ import annotations

from projectors.codecs.base import LabelCodec
from projectors.codecs.container import container_bytes
from projectors.codecs.errors import CodecError
from projectors.codecs.labels import LabelSpec


def encoded_bytes(codec: LabelCodec, spec: LabelSpec) -> int:
    """Length of `codec.encode(labels)` for any labels of this shape, without encoding them.

    Raises:
        CodecError: if such labels do not fit the codec, or if the length depends on their values.
    """
    body = codec.body_bytes(spec)
    if body is None:
        raise CodecError(f"the size of {codec!r} depends on the labels; encode them and measure it")
    return container_bytes(codec, spec, body)


def imagenet_label_bytes(
    codec: LabelCodec, ipc: int, epochs: int = 300, classes: int = 1000
) -> int:
    """Bytes of the encoded labels of a distilled ImageNet-1K, without any labels.

    >>> from projectors.codecs.dense import Dense
    >>> imagenet_label_bytes(Dense("float16"), ipc=1) >> 20  # MiB
    572

    Args:
        codec: one whose size does not depend on the labels.
        ipc: images per class.
        epochs: label epochs.
        classes: number of classes.

    Raises:
        CodecError: as `encoded_bytes`.
    """
    return encoded_bytes(codec, LabelSpec(epochs, ipc * classes, classes))
