import numpy as np
import pytest
import torch

import projectors
from projectors.files import entropy
from projectors.files.compact import pack_compact, quantise, unpack_compact
from projectors.files.entropy import CODERS, decode_symbols, encode_symbols
from projectors.files.storage import COMPACT
from tests.projectors.cases import DIGITS, GRAY, edit


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("count", [15, 255])
@pytest.mark.parametrize("length", [1, 2, 301])
def test_coded_symbols_come_back(coder, count, length):
    generator = np.random.default_rng(0)
    symbols = generator.integers(0, count, length).astype(np.uint8)
    content = encode_symbols(symbols, count, coder)
    assert np.array_equal(decode_symbols(content, count, length, coder), symbols)


@pytest.mark.parametrize("coder", CODERS)
def test_frequent_symbols_cost_less_than_their_bits(coder):
    bell = np.random.default_rng(0).normal(127, 8, 20_000).round().clip(0, 254)
    content = encode_symbols(bell.astype(np.uint8), 255, coder)
    # The entropy of a bell of this width is 5.05 bits.
    assert 0.62 < len(content) / 20_000 < 0.67


@pytest.mark.parametrize("coder", CODERS)
def test_damaged_symbols_are_refused(coder):
    content = encode_symbols(np.arange(200, dtype=np.uint8), 255, coder)
    with pytest.raises(projectors.ProjectorError, match="the coded numbers are"):
        decode_symbols(content[:7], 255, 200, coder)


def test_a_coder_that_is_not_installed_is_named(monkeypatch):
    def absent(symbols, count):
        raise ImportError("no")

    monkeypatch.setitem(CODERS, "zstandard", entropy.Coder(1, absent, absent))
    with pytest.raises(projectors.ProjectorError, match=r"pip install 'limbeck\[compact\]'"):
        encode_symbols(np.zeros(1, np.uint8), 15, "zstandard")


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_rows_are_as_near_as_half_a_step(bits, generator):
    rows = torch.rand(3, 50, generator=generator) * torch.tensor([[1e-6], [1.0], [1e3]])
    scale, codes = quantise(rows, bits)
    assert codes.abs().max() <= 2 ** (bits - 1) - 1
    assert torch.equal(codes, codes.round())
    plain = rows.abs().amax(dim=1) / (2 ** (bits - 1) - 1)
    error = (codes * scale[:, None] - rows).square().mean(dim=1).sqrt()
    # A uniform rounding error is 0.29 steps; the chosen scale is at least about as good.
    assert bool((error <= 0.31 * plain).all())


def test_a_row_of_zeros_stays_zero():
    scale, codes = quantise(torch.zeros(1, 4), 4)
    assert float((codes * scale[:, None]).abs().max()) == 0


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("bits", [4, 8])
def test_tensors_of_any_shape_come_back_rounded_once(bits, coder, generator):
    shapes = {"a": (3, 7), "b": (7, 3), "conv": (2, 3, 3, 3), "bias": (5,), "scale": ()}
    tensors = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    sizes = {name: value.shape for name, value in tensors.items()}
    storage = projectors.Storage(bits, coder)
    once = unpack_compact(pack_compact(tensors, storage), sizes)
    assert {name: value.shape for name, value in once.items()} == sizes
    assert torch.equal(once["scale"], tensors["scale"])
    for name, value in tensors.items():
        torch.testing.assert_close(once[name], value, rtol=0, atol={4: 0.12, 8: 0.01}[bits])
    assert pack_compact(tensors, storage) == pack_compact(tensors, storage)


@pytest.mark.parametrize(("trained", "rank"), [("all", 2), ("low-rank", 2), ("all", 0)])
def test_a_compact_projector_is_what_rounded_promises(tmp_path, stirred, images, trained, rank):
    projector, storage = stirred(trained, rank), projectors.Storage(4, "constriction")
    projectors.save(projector, tmp_path / "small", storage=storage)
    loaded = projectors.load(tmp_path / "small")
    assert torch.equal(loaded(images), projectors.rounded(projector, storage)(images))
    assert not torch.equal(loaded(images), projector(images))


def test_four_bits_are_less_than_a_sixth_of_the_plain_folder(tmp_path, tower):
    adapter = projectors.AdapterSettings(rank=8)
    projector = projectors.build_projector(tower, DIGITS, GRAY, adapter=adapter)
    sizes = {}
    for bits in (32, 8, 4):
        projectors.save(projector, tmp_path / "p", storage=projectors.Storage(bits))
        sizes[bits] = projectors.projector_bytes(tmp_path / "p").shipped
    assert sizes[4] < sizes[32] / 6
    assert sizes[4] < sizes[8] < sizes[32] / 3


def test_a_damaged_compact_file_is_refused_in_one_line(tmp_path, stirred):

    projectors.save(stirred(), tmp_path / "p", storage=projectors.Storage(8))
    edit(tmp_path / "p", lambda document: document["adapter"].update(rank=3))
    with pytest.raises(projectors.ProjectorError, match="fetch the whole folder again") as caught:
        projectors.load(tmp_path / "p")
    assert "\n" not in str(caught.value)
    (tmp_path / "p" / COMPACT).write_bytes(b"no such file")
    with pytest.raises(projectors.ProjectorError, match="damaged or foreign"):
        projectors.load(tmp_path / "p")


def test_storage_that_makes_no_sense_is_refused():
    with pytest.raises(projectors.ProjectorError, match="one of 4, 8, 32"):
        projectors.Storage(16)
    with pytest.raises(projectors.ProjectorError, match="zstandard, constriction"):
        projectors.Storage(8, "zip")
