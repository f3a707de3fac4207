"""What every label codec must pass, and the codecs that are checked."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from projectors.codecs import (
    CodecError,
    Dense,
    Hard,
    Labels,
    LowRank,
    ProductQuantised,
    Pruned,
    Quantised,
    Roots,
    SampledTopK,
    TopK,
    TwoScalars,
    decode,
    encoded_bytes,
    get_codec,
)

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "codecs"

CASES = {
    "dense-float16": Dense("float16"),
    "dense-bfloat16": Dense("bfloat16"),
    "dense-int8": Dense("int8"),
    "topk-plain": TopK(2, tail="plain"),
    "topk-marginal": TopK(2, tail="marginal"),
    "topk-renormalised": TopK(2, tail="renormalised"),
    "sampled-topk": SampledTopK(kept=1, draws=3, seed=5),
    "sampled-topk-no-head": SampledTopK(kept=0, draws=4, seed=5),
    "low-rank": LowRank(2),
    "quantised-lzma": Quantised(0.5, coder="lzma"),
    "quantised-zlib": Quantised(0.01, coder="zlib"),
    "roots": Roots(0.1),
    "roots-fine": Roots(0.01),
    "two-scalars": TwoScalars(),
    "product": ProductQuantised(parts=2, words=4, rank=4),
    "product-one-part": ProductQuantised(parts=1, words=3, rank=2, seed=5),
    "pruned-product": Pruned(ProductQuantised(parts=2, words=4), ratio=0.5, unit="epoch", seed=3),
    "hard": Hard(),
    "pruned-epoch": Pruned(Dense(), ratio=0.5, unit="epoch", seed=3),
    "pruned-batch": Pruned(TopK(2), ratio=0.25, unit="batch", batch_size=2, seed=3),
    "pruned-batch-to-epoch": Pruned(TopK(2), ratio=0.5, batch_size=2, seed=3),
    "pruned-roots": Pruned(Roots(0.1), ratio=0.5, unit="epoch", seed=3),
    "pruned-quantised": Pruned(Quantised(0.5), ratio=0.5, unit="epoch", seed=3),
}


def make_labels(epochs, images, classes, dtype=torch.float16, temperature=2.0, seed=0):
    """Labels whose logits look like a network's: a clear top class, noise elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(epochs, images, classes, generator=generator)
    tops = torch.randint(classes, (epochs, images, 1), generator=generator)
    logits.scatter_add_(2, tops, torch.full(tops.shape, 5.0))
    return Labels(logits.to(dtype), temperature)


def fixture_labels():
    """[4, 5, 6] labels that no library's random numbers decide."""
    steps = torch.arange(120, dtype=torch.float64)
    return Labels((4 * torch.sin(steps * steps)).reshape(4, 5, 6).half(), 2.0)


def check_round_trip(codec, labels):
    decoded = codec.decode(codec.encode(labels))
    assert decoded.spec == labels.spec
    assert decoded.logits.dtype == labels.logits.dtype
    sums = decoded.probabilities().sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
    assert torch.equal(decode(codec.encode(labels)).logits, decoded.logits)
    return decoded


def check_config(codec):
    config = codec.config()
    assert json.loads(json.dumps(config)) == config
    assert config["id"] == type(codec).codec_id
    assert get_codec(json.loads(json.dumps(config))) == codec
    assert get_codec(config).config() == config


def check_repr(codec):
    inside = ", ".join(f"{field.name}={getattr(codec, field.name)!r}" for field in fields(codec))
    assert repr(codec) == f"{type(codec).__name__}({inside})"


def check_determinism(codec, labels):
    again = Labels(labels.logits.clone(), labels.temperature)
    torch.rand(3)  # the global generator must not matter
    assert codec.encode(labels) == codec.encode(again)


def check_size(codec, labels):
    """The formula gives the length of the file."""
    payload = codec.encode(labels)
    if codec.body_bytes(labels.spec) is None:
        with pytest.raises(CodecError, match="depends on the labels"):
            encoded_bytes(codec, labels.spec)
    else:
        assert encoded_bytes(codec, labels.spec) == len(payload)


def check_damage(codec, labels):
    """Any byte changed, any part missing or added: one error, one line."""
    check_damaged(codec.encode(labels), codec.decode, decode)


def check_damaged(payload, *readers):
    """The same for any payload and whatever reads it."""
    places = {0, 7, 8, 10, 14, 22, len(payload) // 2, len(payload) - 33, len(payload) - 1}
    damaged = [bytes(b ^ (i == place) for i, b in enumerate(payload)) for place in places]
    cut = [payload[:length] for length in (0, 1, 8, 21, 22, len(payload) // 2, len(payload) - 1)]
    foreign = [b"\x89PNG\r\n\x1a\n" + payload[8:], payload + b"\0", payload + payload]
    for broken in damaged + cut + foreign:
        for read in readers:
            with pytest.raises(CodecError) as caught:
                read(broken)
            assert "\n" not in str(caught.value)


def check_fixture(name):
    """What an older version wrote still decodes to what it meant."""
    folder = FIXTURES / name / "v1"
    config = json.loads((folder / "config.json").read_text("utf-8"))
    payload = (folder / "encoded.bin").read_bytes()
    expected = torch.from_numpy(np.load(folder / "decoded.npy", allow_pickle=False))
    for labels in (decode(payload), get_codec(config).decode(payload)):
        assert (labels.temperature, labels.logits.dtype) == (2.0, torch.float16)
        # One step of float16: another library's logarithm may round differently.
        torch.testing.assert_close(labels.logits.float(), expected, rtol=2**-10, atol=1e-6)
