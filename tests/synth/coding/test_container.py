"""Headers of coded images that a stranger wrote, and settings that are refused."""

import hashlib
import json
import struct
import tracemalloc

import pytest
import torch

from synth.coding import (
    Bases,
    CodingError,
    Frequency,
    Palette,
    Pixels,
    Rounded,
    open_images,
    pack_images,
    unpack_images,
)
from tests.synth.coding import checks


def sealed(document, body=b"", version=1):
    """A payload with any header and a right checksum."""
    header = document if isinstance(document, bytes) else json.dumps(document).encode()
    start = struct.pack("<4sBH", b"LIMI", version, len(header)) + header + body
    return start + hashlib.blake2b(start, digest_size=8).digest()


GOOD = {"coding": "rounded", "shape": [2, 1, 4, 4], "depth": 1}

HEADERS = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "deep": b"[" * 5000,
    "a list": [],
    "a number": 3,
    "no coding": {"shape": [2, 1, 4, 4]},
    "unknown coding": {**GOOD, "coding": "fractal"},
    "coding is a list": {**GOOD, "coding": []},
    "no shape": {"coding": "rounded"},
    "shape is a number": {**GOOD, "shape": 4},
    "shape is text": {**GOOD, "shape": "2144"},
    "three sides": {**GOOD, "shape": [2, 4, 4]},
    "a side of 0": {**GOOD, "shape": [0, 1, 4, 4]},
    "a side below 0": {**GOOD, "shape": [-2, 1, -4, 4]},
    "a broken side": {**GOOD, "shape": [2.5, 1, 4, 4]},
    "a true side": {**GOOD, "shape": [True, 1, 4, 4]},
    "depth is text": {**GOOD, "depth": "1"},
    "depth is a float": {**GOOD, "depth": 1.5},
    "depth is true": {**GOOD, "depth": True},
    "depth is null": {**GOOD, "depth": None},
    "depth 0": {**GOOD, "depth": 0},
    "depth 9": {**GOOD, "depth": 9},
    "a stranger": {**GOOD, "colour": "red"},
    "groups that do not divide": {**GOOD, "shape": [3, 1, 4, 4], "groups": 2},
    "unknown coder": {**GOOD, "coder": "huffman"},
    "coder is a list": {**GOOD, "coder": []},
    "step NaN": {"coding": "frequency", "shape": [2, 1, 4, 4], "step": float("nan")},
    "step infinite": {"coding": "frequency", "shape": [2, 1, 4, 4], "step": float("inf")},
    "step text": {"coding": "frequency", "shape": [2, 1, 4, 4], "step": "0.3"},
    "largest huge": {"coding": "frequency", "shape": [2, 1, 4, 4], "largest": 10**9},
    "block below 0": {"coding": "frequency", "shape": [2, 1, 4, 4], "block": -2},
    "two channels": {"coding": "frequency", "shape": [2, 2, 4, 4]},
    "colours": {"coding": "palette", "shape": [2, 1, 4, 4], "colours": 257},
    "bases": {"coding": "bases", "shape": [2, 1, 4, 4], "count": 3},
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_make_no_sense_are_refused(name):
    with pytest.raises(CodingError) as caught:
        unpack_images(sealed(HEADERS[name], b"\0" * 8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("coding", ["pixels", "rounded", "frequency", "palette", "bases", "tones"])
def test_a_header_that_promises_gigabytes_takes_no_memory(coding):
    payload = sealed({"coding": coding, "shape": [1 << 20, 3, 1 << 10, 1 << 10]}, b"\0" * 64)
    tracemalloc.start()
    try:
        with pytest.raises(CodingError, match="at most 1,073,741,824 values"):
            unpack_images(payload)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coder", ["arithmetic", "lzma"])
@pytest.mark.parametrize("coding", ["pixels", "rounded", "frequency", "palette", "bases", "tones"])
def test_a_shape_that_the_bytes_cannot_hold_takes_no_memory(coding, coder):
    document = {"coding": coding, "shape": [300, 3, 1 << 10, 1 << 10], "coder": coder}
    payload = sealed(document, b"\1\0\0\0" * 64)
    tracemalloc.start()
    try:
        with pytest.raises(CodingError):
            unpack_images(payload)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_is_the_callers():
    payload = pack_images(checks.CASES["rounded-1"], checks.started(checks.CASES["rounded-1"]))
    with pytest.raises(CodingError, match="at most 700 values; raise the limit"):
        unpack_images(payload, limit=700)
    unpack_images(payload, limit=12 * 64)


def test_a_newer_version_is_named():
    with pytest.raises(CodingError, match="version 2 of coded images, but 1 is known; upgrade"):
        unpack_images(sealed(GOOD, version=2))


def test_opening_decodes_nothing():
    coding = checks.CASES["frequency-groups"]
    found, coder, body = open_images(pack_images(coding, checks.started(coding), "lzma"))
    assert (found, coder) == (coding, "lzma")
    assert body == coding.pack(checks.started(coding), "lzma")


def test_an_unknown_coder_is_refused():
    coding = checks.CASES["rounded-1"]
    with pytest.raises(CodingError, match="no coder 'zip'; there are arithmetic, lzma"):
        pack_images(coding, checks.started(coding), "zip")


SHAPE = (4, 1, 6, 8)

REFUSED = {
    "groups is 0": (Rounded, {"groups": 0}),
    "4 images are no 3 groups": (Frequency, {"groups": 3}),
    "depth is 9": (Rounded, {"depth": 9}),
    "step is 0": (Frequency, {"step": 0}),
    "slope is -1": (Frequency, {"slope": -1}),
    "chroma is 0.5": (Frequency, {"chroma": 0.5}),
    "blocks of side 4 do not tile 6x8": (Frequency, {"block": 4}),
    "colours is 1": (Palette, {"colours": 1}),
    "count is 5": (Bases, {"count": 5}),
    "scale_step is 0": (Bases, {"count": 2, "scale_step": 0}),
    "largest is 2000": (Bases, {"count": 2, "largest": 2000}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_settings_out_of_range_are_refused(message):
    kind, options = REFUSED[message]
    with pytest.raises(CodingError, match=message):
        kind(SHAPE, **options)


def test_a_shape_of_three_sides_is_refused():
    with pytest.raises(CodingError, match="it must be four integers above 0"):
        Pixels((1, 8, 8))


def test_one_image_of_one_pixel():
    for coding in (Rounded((1, 1, 1, 1)), Frequency((1, 1, 1, 1)), Palette((1, 1, 1, 1), 2)):
        checks.check_round_trip(coding, coding.start(torch.full((1, 1, 1, 1), 0.7)))
