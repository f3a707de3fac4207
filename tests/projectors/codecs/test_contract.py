"""The shared checks, on every codec."""

import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from projectors.codecs import CODECS, CodecError, Hard, Labels, UnknownCodecError, get_codec
from tests.projectors.codecs import checks
from tests.projectors.codecs.checks import CASES, FIXTURES, fixture_labels, make_labels
from tests.projectors.codecs.network_cases import NETWORKS

every_codec = pytest.mark.parametrize("codec", CASES.values(), ids=CASES)


def test_every_codec_of_the_registry_is_checked():
    assert {case.codec_id for case in CASES.values()} == set(CODECS)


@every_codec
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(4, 6, 10), (4, 5, 300)], ids=str)
def test_labels_come_back_in_their_shape(codec, shape, dtype):
    labels = make_labels(*shape, dtype=dtype)
    checks.check_round_trip(codec, labels)
    checks.check_size(codec, labels)
    checks.check_determinism(codec, labels)


@every_codec
def test_config_and_repr_say_all(codec):
    checks.check_config(codec)
    checks.check_repr(codec)


@every_codec
def test_damaged_bytes_are_refused(codec):
    checks.check_damage(codec, fixture_labels())


@pytest.mark.parametrize("name", CASES)
def test_fixture_decodes(name):
    checks.check_fixture(name)
    assert CASES[name].config() == get_codec(CASES[name].config()).config()


def test_every_fixture_belongs_to_a_case():
    assert {folder.name for folder in FIXTURES.iterdir()} == {*CASES, *NETWORKS}


def test_the_fixture_script_never_overwrites(tmp_path, monkeypatch):
    path = Path(__file__).resolve().parents[3] / "scripts" / "make_codec_fixtures.py"
    script = runpy.run_path(str(path))
    monkeypatch.setitem(script["make"].__globals__, "FIXTURES", tmp_path)
    assert script["make"]("hard", Hard())
    written = (tmp_path / "hard" / "v1" / "encoded.bin").read_bytes()
    assert written == (FIXTURES / "hard" / "v1" / "encoded.bin").read_bytes()
    assert not script["make"]("hard", CASES["dense-int8"])
    assert (tmp_path / "hard" / "v1" / "encoded.bin").read_bytes() == written


@every_codec
@pytest.mark.parametrize("peak", [0.0, 60000.0])
def test_extreme_logits_survive(codec, peak):
    logits = torch.zeros(4, 2, 10)
    logits[..., 3] = peak
    logits[1:, :, 4] = -peak
    if codec == CASES["two-scalars"] and peak:
        with pytest.raises(CodecError, match="float16"):
            codec.encode(Labels(logits * 2))
    else:
        decoded = checks.check_round_trip(codec, Labels(logits.half()))
        if peak and codec.codec_id != "sampled-topk":
            assert (decoded.logits.argmax(dim=-1) == 3).all()


@pytest.mark.parametrize(
    ("logits", "temperature", "message"),
    [
        (torch.zeros(2, 3), 1.0, r"shape \[2, 3\].*\[e, n, k\]"),
        (torch.zeros(1, 2, 1), 1.0, "classes=1"),
        (torch.zeros(0, 2, 3), 1.0, "epochs=0"),
        (torch.zeros(1, 2, 3, dtype=torch.float64), 1.0, "float64.*convert"),
        (torch.zeros(1, 2, 3), 0.0, "temperature=0.0"),
        (torch.zeros(1, 2, 3), float("nan"), "temperature=nan"),
        (torch.full((1, 2, 3), torch.nan), 1.0, "NaN"),
    ],
)
def test_labels_refuse_what_no_codec_could_keep(logits, temperature, message):
    with pytest.raises(CodecError, match=message):
        Labels(logits, temperature)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id": "topk"}, r"missing fields \['k'\]"),
        ({"id": "topk", "k": 2, "kk": 1}, r"unknown fields \['kk'\]"),
        ({"id": "topk", "k": True}, "k=True"),
        ({"id": "topk", "k": 2, "tail": "fat"}, "plain, marginal, renormalised"),
        ({"id": "dense", "dtype": "int4"}, "float16, bfloat16, int8"),
        ({"id": "quantised", "step": 0}, "step=0"),
        ({"id": "low-rank", "rank": 0}, "rank=0"),
        ({"id": "sampled-topk", "kept": 1, "draws": 0}, "draws=0"),
        ({"id": "pruned", "inner": {"id": "hard"}, "ratio": 1.0}, "ratio=1.0"),
        ({"id": "pruned", "inner": 3, "ratio": 0.5}, "inner=3"),
        ({"id": "pruned", "inner": {"id": "pruned"}, "ratio": 0.5}, "inside itself"),
        ("dense", "no codec's config"),
    ],
)
def test_a_wrong_config_is_refused(config, message):
    with pytest.raises(CodecError, match=message):
        get_codec(config)


def test_an_unknown_codec_is_named_and_the_known_ones_listed():
    with pytest.raises(UnknownCodecError, match=r"'jpeg'.*dense, hard") as caught:
        get_codec({"id": "jpeg"})
    assert caught.value.codec_id == "jpeg"


def test_labels_of_a_pool_are_not_encoded_again():
    codec = CASES["pruned-epoch"]
    repeated = codec.decode(codec.encode(fixture_labels()))
    with pytest.raises(CodecError, match="repeat a pruned pool"):
        Hard().encode(repeated)


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(data=st.data())
@every_codec
def test_any_labels_come_back(codec, data):
    shape = (4, data.draw(st.integers(2, 5)), data.draw(st.integers(3, 9)))
    elements = st.floats(-30, 30, width=16)
    logits = data.draw(npst.arrays("float16", shape, elements=elements))
    temperature = data.draw(st.sampled_from([0.5, 1.0, 4.0, 20.0]))
    checks.check_round_trip(codec, Labels(torch.from_numpy(logits.copy()), temperature))
