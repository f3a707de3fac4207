"""A label codec of a user's own, see docs/how-to/own-codec.md."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from projectors.codecs import DECODED_LIMIT, Labels, LabelSpec, pack
from projectors.codecs.base import Payload, describe
from projectors.codecs.container import open_body
from projectors.codecs.labels import from_rows, logit_rows

MODULE = __name__


@dataclass(frozen=True)
class Halves:
    """Logits as float16."""

    codec_id: ClassVar[str] = "halves-of-a-user"

    def config(self) -> dict[str, Any]:
        return describe(self)

    def body_bytes(self, spec: LabelSpec) -> int:
        return 2 * spec.labels * spec.classes

    def encode(self, labels: Labels) -> bytes:
        return pack(self, labels.spec, logit_rows(labels).numpy().astype("<f2").tobytes())

    def decode(self, payload: Payload, *, limit: int = DECODED_LIMIT) -> Labels:
        container = open_body(self, payload, limit)
        rows = np.frombuffer(container.body, "<f2").reshape(-1, container.spec.classes)
        return from_rows(torch.from_numpy(rows.astype("f4")), container.spec)
