"""Payloads that were made to mislead: the checksum is right and the content is not."""

import hashlib
import json
import lzma
import struct
import tracemalloc
import zlib

import pytest

from projectors.codecs import CodecError, Dense, Hard, TopK, UnknownCodecError, decode, unpack
from tests.projectors.codecs.checks import CASES, fixture_labels

PREFIX = struct.Struct("<8sHIQ")


def forge(payload, *, labels=(), codec=(), header=None, body=None, version=1):
    """A container with other content and a right checksum."""
    _, _, header_bytes, _ = PREFIX.unpack(payload[: PREFIX.size])
    document = json.loads(payload[PREFIX.size : PREFIX.size + header_bytes])
    document["labels"].update(labels)
    document["codec"].update(codec)
    text = json.dumps(document, sort_keys=True).encode() if header is None else header
    content = payload[PREFIX.size + header_bytes : -32] if body is None else body
    start = PREFIX.pack(payload[:8], version, len(text), len(content)) + text + content
    return start + hashlib.sha256(start).digest()


def refuse(payload, match, limit=2**40):
    """The error comes, and before memory was taken for what the payload promised."""
    with pytest.raises(CodecError):  # what is imported on first use must not count
        decode(payload, limit=limit)
    tracemalloc.start()
    with pytest.raises(CodecError, match=match):
        decode(payload, limit=limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The window of a raw LZMA stream takes 8 MiB; the false shapes promise hundreds.
    assert peak < 1 << 24


def test_a_forged_container_that_changes_nothing_is_read():
    payload = Hard().encode(fixture_labels())
    assert decode(forge(payload)).spec == fixture_labels().spec


@pytest.mark.parametrize("name", [name for name in CASES if "quantised" not in name])
@pytest.mark.parametrize("lie", [{"epochs": 10**7}, {"images": 10**7}, {"images": 3}], ids=str)
def test_a_false_shape_is_refused(name, lie):
    payload = CASES[name].encode(fixture_labels())
    refuse(forge(payload, labels=lie), "bytes for|a pool of|coded for")


@pytest.mark.parametrize("name", CASES)
def test_a_shape_above_the_limit_is_refused(name):
    payload = CASES[name].encode(fixture_labels())
    refuse(payload, "the limit is 100; raise limit", limit=100)
    refuse(forge(payload, labels={"epochs": 2**31 - 1, "images": 2**31 - 1}), "limit")


@pytest.mark.parametrize("name", ["quantised-lzma", "quantised-zlib"])
@pytest.mark.parametrize("epochs", [3, 5, 10**7])
def test_a_stream_of_another_length_is_refused(name, epochs):
    payload = CASES[name].encode(fixture_labels())
    refuse(forge(payload, labels={"epochs": epochs}), "does not give")


def test_a_decompression_bomb_is_stopped_at_the_promised_size():
    bomb = b"\x01" + zlib.compress(bytes(1 << 26), 9)
    refuse(forge(CASES["quantised-zlib"].encode(fixture_labels()), body=bomb), "does not give")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    stream = b"\x01" + lzma.compress(bytes(1 << 26), lzma.FORMAT_RAW, filters=filters)
    refuse(forge(CASES["quantised-lzma"].encode(fixture_labels()), body=stream), "does not give")


@pytest.mark.parametrize("name", ["quantised-lzma", "quantised-zlib"])
def test_a_stream_that_is_cut_or_continued_is_refused(name):
    payload = CASES[name].encode(fixture_labels())
    body = bytes(unpack(payload).body)
    for changed in (body + b"\0", body[:-1]):
        refuse(forge(payload, body=changed), "does not give")


@pytest.mark.parametrize("name", ["quantised-lzma", "quantised-zlib"])
@pytest.mark.parametrize(
    ("body", "match"),
    [(b"", "0 bytes"), (b"\x03abc", "3 bytes"), (b"\x01\xff\xff", "broken|does not give")],
)
def test_a_broken_stream_is_refused(name, body, match):
    refuse(forge(CASES[name].encode(fixture_labels()), body=body), match)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"[" * 60000, "header"),
        (b"{}", "header"),
        (b"\xff", "header"),
        (b'{"codec": 1, "labels": {"epochs": 1, "images": 1, "classes": 2}}', "names no codec"),
        (b'{"codec": {}, "labels": {"epochs": 1, "images": 1}}', "header"),
        (b'{"codec": {}, "labels": {"epochs": 1, "images": -1, "classes": 2}}', "images=-1"),
        (b'{"codec": {}, "labels": {"epochs": 1, "images": 1.5, "classes": 2}}', "images=1.5"),
        (b'{"codec": {}, "labels": {"epochs": 1, "images": true, "classes": 2}}', "images=True"),
        (b" " * 70000, "bytes of encoded labels"),
    ],
)
def test_a_senseless_header_is_refused(header, match):
    payload = Hard().encode(fixture_labels())
    with pytest.raises(CodecError, match=match):
        decode(forge(payload, header=header))


def test_another_version_and_another_codec_are_refused():
    payload = Hard().encode(fixture_labels())
    refuse(forge(payload, version=2), "version 2.*upgrade")
    with pytest.raises(UnknownCodecError, match="jpeg"):
        decode(forge(payload, codec={"id": "jpeg"}))
    with pytest.raises(CodecError, match="asked to decode"):
        TopK(2).decode(payload)


def test_numbers_outside_their_range_are_refused():
    labels = fixture_labels()
    size = labels.spec.labels
    refuse(forge(Hard().encode(labels), body=b"\x06" * size), "index 6 of 6")
    nan = struct.pack("<e", float("nan"))
    refuse(forge(Dense().encode(labels), body=nan * size * 6), "NaN")
    ids = bytes(2 * size)
    refuse(forge(TopK(2).encode(labels), body=struct.pack("<e", 2.0) * 2 * size + ids), "outside")


def test_a_pool_of_another_shape_is_refused():
    codec = CASES["pruned-epoch"]
    labels = fixture_labels()
    body = bytearray(codec.inner.encode(labels))
    refuse(forge(codec.encode(labels), body=bytes(body)), "bytes for")
    codec = CASES["pruned-quantised"]
    body = codec.inner.encode(labels)
    refuse(forge(codec.encode(labels), body=body), "a pool of")
