"""The contract of a label codec."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Protocol

from projectors.codecs.labels import Labels, LabelSpec

# Decoding refuses labels that would take more memory than this; callers may raise it.
DECODED_LIMIT = 16 * 2**30

Payload = bytes | memoryview


class LabelCodec(Protocol):
    """A frozen dataclass that turns labels into bytes and back; its fields are its config.

    `codec_id` names the format of the bytes permanently: a codec whose bytes change gets a new id,
    and the old one stays readable. The same codec and labels give the same bytes.
    """

    codec_id: ClassVar[str]

    def encode(self, labels: Labels) -> bytes:
        """A whole container, which `decode` of this codec and of the package can read.

        Raises:
            CodecError: if the labels do not fit the codec.
        """
        ...

    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        """The labels of a container that a codec of the same config made.

        Args:
            payload: what `encode` gave.
            limit: most bytes that the decoded logits may take.

        Raises:
            CodecError: for bytes that are cut short, damaged or foreign, or a shape that is false.
        """
        ...

    def config(self) -> dict[str, Any]:
        """The fields and the id, JSON-able; `get_codec` builds the codec again."""
        ...

    def body_bytes(self, spec: LabelSpec) -> int | None:
        """Bytes of encoded labels without the container, or None if it depends on their values.

        Raises:
            CodecError: if labels of this shape do not fit the codec.
        """
        ...


def describe(codec: LabelCodec) -> dict[str, Any]:
    """The config of a codec: its id and its fields, those of a codec inside it nested."""
    values: dict[str, Any] = {"id": codec.codec_id}
    if is_dataclass(codec):
        for field in fields(codec):
            value = getattr(codec, field.name)
            values[field.name] = value.config() if hasattr(value, "config") else value
    return values
