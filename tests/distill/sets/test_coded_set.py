"""set.h5 with coded images: the same set to every reader, in fewer bytes."""

import contextlib
import hashlib
import json
import struct
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

import distill
from distill.errors import WorkError
from distill.sets.additions import add_measured, add_votes, code_images
from distill.sets.set_file import read_set, write_set
from distill.stages.loading import STAGES
from distill.store.content_digests import digest_content
from distill.store.hdf5 import put
from synth.coding import (
    CodingError,
    Frequency,
    Palette,
    Pixels,
    Rounded,
    pack_images,
    unpack_images,
)
from synth.formation import decode_images
from synth.whitening import Whitening
from tests.distill.cases import edited
from tests.distill.sets.cases import make_set, make_votes


def pack(content, kind=Rounded, **settings):
    pixels = content.preprocess.inverse(content.images).clamp(0, 1)
    coding = kind(tuple(pixels.shape), **settings)
    return pack_images(coding, coding.start(pixels))


def make_coded(**changes):
    content = replace(make_set(), **changes)
    return code_images(content, pack(content))


@pytest.mark.parametrize("kind", [Pixels, Rounded, Palette])
def test_coded_set_round_trip_is_what_the_payload_decodes_to(kind, tmp_path):
    content = make_set()
    coded = code_images(content, pack(content, kind))
    write_set(tmp_path / "set.h5", coded)
    found = read_set(tmp_path / "set.h5")
    assert found.coded == coded.coded
    pixels, _ = unpack_images(found.coded)
    assert torch.equal(found.images, content.preprocess(pixels))
    assert torch.equal(found.hard, content.hard)
    assert torch.equal(found.learned, content.learned)
    with h5py.File(tmp_path / "set.h5") as file:
        assert "images" not in file
        assert file["coded"].dtype == np.uint8
        assert file["coded"].fletcher32


def test_coded_images_are_the_stored_ones_under_a_formation_factor(tmp_path):
    content = replace(make_set(), images=torch.randn(6, 1, 4, 4), learned=None)
    content = replace(content, manifest={**content.manifest, "factor": 2})
    coded = code_images(content, pack(content, Frequency, step=0.1))
    write_set(tmp_path / "set.h5", coded)
    found = read_set(tmp_path / "set.h5")
    assert found.images.shape == (6, 1, 4, 4)
    assert torch.equal(found.seen_images, decode_images(coded.images, 2))


def test_coded_pixels_of_a_whitened_set_are_whitened_again(tmp_path):
    matrix = torch.eye(20) * 2
    whitening = Whitening(torch.full((20,), 0.5), matrix, matrix.inverse(), (1, 4, 5))
    coded = make_coded(whitening=whitening, images=torch.rand(6, 1, 4, 5) - 0.5)
    write_set(tmp_path / "set.h5", coded)
    found = read_set(tmp_path / "set.h5")
    pixels, _ = unpack_images(coded.coded)
    torch.testing.assert_close(found.images, (2 * (pixels - 0.5)))


def test_what_is_added_later_keeps_the_coded_images(tmp_path):
    path, coded = tmp_path / "set.h5", make_coded()
    write_set(path, coded)
    add_votes(path, make_votes())
    add_measured(path, {"a": 1})
    found = read_set(path)
    assert found.coded == coded.coded
    assert found.votes is not None
    assert found.measured == {"a": 1}


def test_coding_drops_what_belonged_to_the_images_before():
    content = make_set(votes=make_votes(), measured={"a": 1}, refined=make_set().images)
    coded = code_images(content, pack(content))
    assert (coded.votes, coded.measured, coded.refined, coded.encoded) == (None, None, None, {})
    assert torch.equal(coded.learned, content.learned)


def test_payload_of_other_images_is_refused():
    content = make_set()
    with pytest.raises(CodingError, match="6 coded images for 3 hard labels"):
        code_images(replace(content, hard=content.hard[:3]), pack(content))


def damage(path, change):
    with h5py.File(path) as file:
        payload = bytearray(file["coded"][()].tobytes())
    changed = change(payload)
    with edited(path) as file:
        del file["coded"]
        put(file, "coded", np.frombuffer(bytes(changed), np.uint8), None)


def flipped(payload):
    payload[len(payload) // 2] ^= 1
    return payload


def other_count(_):
    return pack(replace(make_set(), images=torch.randn(5, 1, 4, 5)))


def forge(header, body):
    """A payload that is true to its checksum."""
    start = struct.pack("<4sBH", b"LIMI", 1, len(header)) + header + body
    return start + hashlib.blake2b(start, digest_size=8).digest()


def not_finite(_):
    body = np.full(6 * 20, np.nan, "<f4").tobytes()
    return forge(b'{"coding":"pixels","shape":[6,1,4,5]}', body)


def three_channels(_):
    coding = Pixels((6, 3, 4, 5))
    return pack_images(coding, torch.zeros(coding.shape))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flipped, "checksum of the coded images is wrong"),
        (lambda payload: payload[:-1], "checksum of the coded images is wrong"),
        (lambda payload: b"PNG" + payload, "are no coded images"),
        (lambda payload: payload[:4] + b"\x09" + payload[5:], "upgrade"),
        (other_count, "5 coded images for 6 hard labels"),
        (three_channels, "h, w] is needed"),
        (not_finite, "NaN or infinite"),
    ],
)
def test_damaged_payload_gets_one_line(change, words, tmp_path, refused):
    path = tmp_path / "set.h5"
    write_set(path, make_coded())
    damage(path, change)
    line = refused(1, "show", path)
    assert words in line
    assert str(path) in line


def test_payload_that_promises_too_much_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """The header is small, and true to its checksum; what it asks for is 24 terabytes."""
    path = tmp_path / "set.h5"
    write_set(path, make_coded())
    damage(path, lambda _: forge(b'{"coding":"rounded","shape":[6,1,1048576,1048576]}', b""))
    monkeypatch.setattr("distill.sets.coded_set.unpack_images", lambda _: pytest.fail("decoded"))
    with pytest.raises(WorkError, match="at most 1,073,741,824 values"):
        read_set(path)


def test_file_with_both_kinds_of_images_is_refused(tmp_path):
    path = tmp_path / "set.h5"
    write_set(path, make_coded())
    with edited(path) as file:
        put(file, "images", np.zeros((6, 1, 4, 5), np.float32), None)
    with pytest.raises(WorkError, match="both /coded and /images"):
        read_set(path)


@pytest.fixture
def coded_run(run_copy):
    """A finished run whose images are coded, as a run within a budget leaves it."""
    path = run_copy / "set.h5"
    content = read_set(path)
    coded = code_images(content, pack(content, Frequency, step=0.1))
    write_set(path, replace(coded, votes=content.votes, measured=content.measured))
    return run_copy


def test_a_stage_that_makes_images_has_coded_ones_digested(coded_run):
    digest = STAGES["match"].outputs(coded_run)
    path = coded_run / "set.h5"
    content = read_set(path)
    write_set(path, code_images(content, pack(content, Rounded, depth=1)))
    assert STAGES["match"].outputs(coded_run) != digest


@pytest.mark.parametrize("form", ["safetensors", "npz", "torch"])
def test_coded_set_travels_whole_and_others_find_its_images(form, coded_run, command, tmp_path):
    out, back = tmp_path / "out", tmp_path / "back.h5"
    outcome = command("export", "set", coded_run, "--format", form, "--out", out)
    assert outcome.code == 0, outcome.err
    scope, code = {}, (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    with contextlib.chdir(out):
        exec(code, scope)
    images = torch.as_tensor(scope["images"])
    assert torch.equal(images, distill.load(coded_run).images)
    assert command("import", out, "--from", form, "--out", back).code == 0
    parts = ("coded", "hard", "labels")
    assert digest_content(back, "set", parts, True) == digest_content(
        coded_run / "set.h5", "set", parts, True
    )


def test_coded_set_is_exported_as_pictures(coded_run, command, tmp_path):
    for form in ("imagefolder", "hf"):
        out = tmp_path / form
        assert command("export", "set", coded_run, "--format", form, "--out", out).code == 0
        assert len(list(out.rglob("*.png"))) == 10


def test_commands_read_a_coded_set_as_any_other(coded_run, command, tmp_path):
    path = coded_run / "set.h5"
    shown = json.loads(command("show", path, "--json").out)
    assert shown["images"] == [10, 1, 8, 8]
    assert shown["coded images"] == len(read_set(path).coded)
    assert "whole and readable" in command("verify", path).out
    for arguments in (
        ("report", coded_run, "--out", tmp_path / "report.html"),
        ("evaluate", path, "--seeds", "1", "--record", "--quiet"),
        ("encode", path, "--codec", "quantised", "--quiet"),
    ):
        outcome = command(*arguments)
        assert outcome.code == 0, outcome.err
    assert read_set(path).coded is not None
