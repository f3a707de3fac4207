"""Payloads that hold a network: old bytes decode for ever, damage and lies are one error."""

import struct
import zlib

import numpy as np
import pytest
import torch

from projectors.codecs import CodecError, Hard, Weights
from projectors.codecs.container import seal, unseal
from projectors.codecs.residual import unpack_residual
from projectors.files.archive import unpack_projector
from tests.projectors.codecs import checks
from tests.projectors.codecs.checks import FIXTURES, fixture_labels
from tests.projectors.codecs.network_cases import NETWORKS, state, waves

every_network = pytest.mark.parametrize("name", NETWORKS)


@every_network
def test_what_an_older_version_wrote_still_decodes(name):
    folder = FIXTURES / name / "v1"
    found = NETWORKS[name][1]((folder / "encoded.bin").read_bytes())
    with np.load(folder / "decoded.npz", allow_pickle=False) as expected:
        assert set(expected) == set(found)
        for key, value in found.items():
            torch.testing.assert_close(value, torch.from_numpy(expected[key]), rtol=1e-6, atol=0)


@every_network
def test_the_same_network_gives_the_same_bytes_and_comes_back(name, tmp_path):
    write, read = NETWORKS[name]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one = write(tmp_path / "a")
        torch.manual_seed(0)
        assert one == write(tmp_path / "b")
    assert read(one)


@every_network
def test_damaged_networks_are_refused(name):
    payload = (FIXTURES / name / "v1" / "encoded.bin").read_bytes()
    checks.check_damaged(payload, NETWORKS[name][1])


@every_network
def test_a_payload_of_another_kind_is_refused(name):
    for other in NETWORKS:
        if other != name:
            with pytest.raises(CodecError):
                NETWORKS[name][1]((FIXTURES / other / "v1" / "encoded.bin").read_bytes())
    with pytest.raises(CodecError):
        NETWORKS[name][1](Hard().encode(fixture_labels()))


def forged(name, body=None, **document):
    """A fixture with another document or body, and a right checksum."""
    own, content = unseal((FIXTURES / name / "v1" / "encoded.bin").read_bytes())
    return seal({**own, **document}, bytes(content) if body is None else body)


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"files": [["../escape", 3]]}, "outside its folder"),
        ({"files": [["projector.json", -3]]}, "outside its folder"),
        ({"files": [["projector.json"]]}, "not listed"),
        ({"files": None}, "not listed"),
        ({"about": 3}, "not listed"),
        (
            {"files": [["projector.json", 3]]},
            "stream of 'projector.json' of a projector is cut short",
        ),
        ({"files": []}, "for files that take 0"),
    ],
)
def test_a_projector_that_lies_is_refused(document, match, tmp_path):
    with pytest.raises(CodecError, match=match):
        unpack_projector(forged("projector", **document), tmp_path)
    assert not (tmp_path.parent / "escape").exists()


@pytest.mark.parametrize("place", [0, 4, 8, 12, -1])
def test_weights_that_lie_are_refused(place):
    _, content = unseal((FIXTURES / "weights-8" / "v1" / "encoded.bin").read_bytes())
    body = bytearray(content)
    body[place] ^= 0x11
    with pytest.raises(CodecError):
        Weights(8).decode(forged("weights-8", bytes(body)))


def test_weights_of_other_bits_are_refused():
    with pytest.raises(CodecError, match="no weights of 8 bits"):
        Weights(8).decode((FIXTURES / "weights-3" / "v1" / "encoded.bin").read_bytes())


def test_residual_labels_that_lie_are_refused():
    for document in ({"shape": [4]}, {"shape": None}, {"shape": [10**6, 10**6]}, {"shape": [5, 4]}):
        payload = forged("residual", **document)
        if document["shape"] == [5, 4]:
            with pytest.raises(CodecError, match="but the network labelled"):
                NETWORKS["residual"][1](payload)
        else:
            with pytest.raises(CodecError, match="residual labels"):
                unpack_residual(payload)
    _, content = unseal((FIXTURES / "residual" / "v1" / "encoded.bin").read_bytes())
    network, bits = struct.unpack("<QQ", content[:16])
    mask = zlib.compress(np.packbits(np.ones(20, bool)).tobytes(), 9)
    body = struct.pack("<QQ", network, len(mask)) + bytes(content[16 : 16 + network]) + mask
    with pytest.raises(CodecError, match="residual labels for 20"):
        unpack_residual(forged("residual", body + bytes(content[16 + network + bits :])))


@pytest.mark.parametrize("bits", range(2, 9))
def test_rounding_is_what_comes_back_and_nothing_more_the_second_time(bits):
    codec = Weights(bits)
    kernel = waves(5, 2, 3, 3) * waves(5, 1, 1, 1, step=2).exp()
    once = codec.rounded(kernel)
    back, _ = codec.decode(codec.encode({"kernel": kernel}, {}))
    assert torch.equal(once, back["kernel"])
    assert torch.equal(codec.rounded(once), once)
    assert not torch.equal(once, kernel)


def test_few_weights_take_few_lanes():
    codec = Weights(4)
    small, large = ({"w": waves(count, 64)} for count in (40, 2000))
    plain = len(zlib.compress(b"", 9))
    assert unseal(codec.encode(small, {}))[0]["lanes"] == 2
    assert "lanes" not in unseal(codec.encode(large, {}))[0]
    # 2,560 weights of 15 values: under 4 bits each, and 62 lanes of 4 bytes would add a fifth.
    assert len(codec.encode(small, {})) < 2560 / 2 + 40 * 2 + 200 + plain


@pytest.mark.parametrize("lanes", [0, 65, "2", True, None])
def test_impossible_lanes_are_refused(lanes):
    document, body = unseal(Weights(8).encode(state(), {}))
    with pytest.raises(CodecError, match="lanes"):
        Weights(8).decode(seal({**document, "lanes": lanes}, bytes(body)))
