"""Damaged payloads, and payloads that lie with a checksum that fits, raise CodecError alone."""

import copy
import hashlib
import json
import math
import resource
import struct
import zlib
from random import Random

import pytest
import torch

from projectors.codecs import CodecError, Dense, Weights, decode
from projectors.codecs.container import seal, unseal
from projectors.codecs.residual import pack_residual, unpack_residual
from projectors.files.archive import unpack_projector
from tests.projectors.codecs.checks import CASES, make_labels

VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2,
    7,
    3.5,
    10**6,
    10**9,
    2**31 - 1,
    10**30,
    math.inf,
    "",
    "x",
    [],
    {},
)


def cases(few, many):
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def payloads():
    labels = make_labels(4, 6, 5)
    found = {name: codec.encode(labels) for name, codec in CASES.items()}
    state = {"w": torch.randn(8, 4), "b": torch.randn(8), "n": torch.tensor(3)}
    found["weights"] = Weights(4).encode(state, {"epochs": 2})
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1, 2] = True
    found["residual"] = pack_residual(found["weights"], labels.logits, 2.0, mask, Dense())
    parts = [b"{}", b"adapter"]
    files = [["projector.json", 10], ["head.safetensors", 15]]

    body = b"".join(zlib.compress(part) for part in parts)
    found["projector"] = seal({"network": "projector", "files": files, "about": {}}, body)
    return found


def read(name, payload, folder):
    if name == "weights":
        return Weights(4).decode(payload)
    if name == "residual":
        return unpack_residual(payload)
    if name == "projector":
        return unpack_projector(payload, folder)
    return decode(payload)


def lie(payload, random):
    """The payload with its header or its body changed, sealed again."""
    document, body = unseal(payload)
    document, body = copy.deepcopy(document), bytearray(body)
    draw = random.random()
    if draw < 0.45:
        holder = document
        while True:
            key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            inner = holder[key]
            if not isinstance(inner, dict | list) or not inner or random.random() < 0.1:
                break
            holder = inner
        holder[key] = random.choice(VALUES)
    elif draw < 0.5:
        document = random.choice(({}, {"network": "projector", "files": [["../../x", 3]]}))
    if draw > 0.4 and body:
        place, kind = random.randrange(len(body)), random.randrange(4)
        size = random.choice((1, 2, 4, 8))
        if kind == 0:
            del body[place:]
        elif kind == 1:
            body[place : place + size] = b"\xff" * size
        elif kind == 2:
            body[place : place + size] = bytes(random.randrange(256) for _ in range(size))
        else:
            body[:size] = random.choice((b"\0", b"\xff", b"\x7f")) * size
    try:
        return seal(document, bytes(body))
    except ValueError:
        # No infinity in a header that is written; one may still be in one that is read.
        header = json.dumps(document).encode()
        sealed = struct.pack("<8sHIQ", b"LIMBLAB\0", 1, len(header), len(body)) + header + body
        return sealed + hashlib.sha256(sealed).digest()


def flip(payload, random):
    found = bytearray(payload)
    found[random.randrange(len(found))] ^= 1 << random.randrange(8)
    return bytes(found[: random.choice((len(found), random.randrange(len(found) + 1)))])


@cases(15, 60)
def test_payload_that_lies(count, payloads, tmp_path):
    """20 codecs and 3 networks, `count` each."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (4 << 30), limits[1]))
    faults = {}
    try:
        for name, payload in payloads.items():
            for seed in range(count):
                random = Random(f"{name}{seed}")
                change = lie if seed % 4 else flip
                try:
                    read(name, change(payload, random), tmp_path)
                except CodecError as error:
                    if "\n" in str(error):
                        faults[name, seed] = error
                except Exception as error:  # noqa: BLE001 - that is what is looked for
                    faults[name, seed] = error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    listed = "\n".join(f"{place}: {error!r}" for place, error in faults.items())
    assert not faults, f"{len(faults)} of {count * len(payloads)}:\n{listed}"


@pytest.mark.parametrize("name", ["..", "", ".", "/etc/x", "../x", "a/b", "nul\0", "a/.."])
def test_packed_file_outside_its_folder_is_refused(name, tmp_path):
    payload = seal({"network": "projector", "files": [[name, 0]], "about": {}}, b"")
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(CodecError, match="outside its folder"):
        unpack_projector(payload, inner)
    assert [path.name for path in tmp_path.rglob("*")] == ["inner"]


def test_packed_bomb_is_refused(tmp_path):

    packed = zlib.compress(bytes(200 << 20), 1)
    document = {"network": "projector", "files": [["head.safetensors", len(packed)]], "about": {}}
    with pytest.raises(CodecError, match="gives more than"):
        unpack_projector(seal(document, packed), tmp_path)
    assert not list(tmp_path.iterdir())
