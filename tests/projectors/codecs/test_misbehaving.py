"""A codec of a user's own that fails, or gives what it should not, is named in one line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from projectors.codecs import CodecError, Dense, Labels, decode, pack
from projectors.codecs.base import describe
from projectors.codecs.container import open_body
from projectors.codecs.labels import from_rows, logit_rows
from projectors.codecs.registry import CODECS, encode

LABELS = Labels(torch.arange(24.0).view(2, 4, 3), 4.0)


@dataclass(frozen=True)
class Own:
    """Logits as float16; what it does is changed by the tests."""

    codec_id: ClassVar[str] = "own-that-misbehaves"
    instead: ClassVar[dict[str, Callable[..., Any]]] = {}

    def config(self):
        return describe(self)

    def body_bytes(self, spec):
        return self.instead.get("body_bytes", lambda: 2 * spec.labels * spec.classes)()

    def encode(self, labels):
        body = logit_rows(labels).numpy().astype("<f2").tobytes()
        return self.instead.get("encode", lambda: pack(self, labels.spec, body))()

    def decode(self, payload, *, limit=1 << 30):
        container = open_body(self, payload, limit)
        rows = np.frombuffer(container.body, "<f2").reshape(-1, container.spec.classes)
        labels = from_rows(torch.from_numpy(rows.astype("f4")), container.spec)
        return self.instead.get("decode", lambda: labels)()


@pytest.fixture
def own(monkeypatch):
    """The codec, which does something else instead."""
    monkeypatch.setitem(CODECS, Own.codec_id, Own)

    def change(**instead):
        monkeypatch.setattr(Own, "instead", instead)
        return Own()

    return change


def fail():
    raise ZeroDivisionError("division\nby zero")


def test_a_codec_that_keeps_its_word_is_used(own):
    assert torch.equal(decode(encode(own(), LABELS)).logits, LABELS.logits)


def test_a_config_may_have_tuples(own, monkeypatch):
    monkeypatch.setattr(Own, "config", lambda self: {**describe(self), "parts": (1, 2)})
    assert encode(own(), LABELS)


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        (fail, f"own-that-misbehaves: ZeroDivisionError: division by zero; mend {__name__}"),
        (lambda: "text", "TypeError: .*bytes-like object"),
        (lambda: b"", "0 bytes are no encoded labels"),
        (lambda: Dense().encode(LABELS), "gives a container of .*'id': 'dense'"),
        (lambda: pack(Own(), Labels(LABELS.logits[:1]).spec, b""), "for labels of LabelSpec"),
    ],
)
def test_an_encoder_that_gives_no_container_is_named(instead, words, own):
    with pytest.raises(CodecError, match=words):
        encode(own(encode=instead), LABELS)


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        (fail, f"own-that-misbehaves: ZeroDivisionError: division by zero; mend {__name__}"),
        (lambda: None, "'NoneType' object has no attribute 'logits'; mend"),
        (lambda: Labels(LABELS.logits[:1]), r"labels of shape \[1, 4, 3\], not \[2, 4, 3\]; mend"),
        (lambda: Labels(LABELS.logits / 0), "NaN or infinity"),
    ],
)
def test_a_decoder_that_gives_other_labels_is_named(instead, words, own):
    payload = encode(own(), LABELS)
    own(decode=instead)
    with pytest.raises(CodecError, match=words):
        decode(payload)


def test_a_codec_that_cannot_say_its_size_is_named(own):
    payload = encode(own(), LABELS)
    own(body_bytes=fail)
    with pytest.raises(CodecError, match="ZeroDivisionError"):
        decode(payload)


def test_a_lack_of_memory_is_none_of_the_codecs(own):
    def lack():
        raise MemoryError

    with pytest.raises(MemoryError):
        encode(own(encode=lack), LABELS)
    with pytest.raises(ZeroDivisionError):
        # What is wrong with the codecs of the package is no user's to mend.
        encode(
            type("Ours", (Dense,), {"__module__": "projectors.x", "encode": lambda *_: fail()})(),
            LABELS,
        )
