"""Root-coded labels and the range coder: bounds, contexts and round trips."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from projectors.codecs import CodecError, Labels, Quantised, Roots
from projectors.codecs.rans import Decoder, encode_blocks, frequencies
from tests.projectors.codecs.checks import make_labels


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_blocks_come_back(symbols, contexts, lanes, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, size=3)
    blocks = [
        (rng.integers(0, symbols, size).astype(np.uint8), rng.integers(0, contexts, size))
        for size in sizes
    ]
    joint = sum(
        np.bincount(of * symbols + row.astype(np.int64), minlength=contexts * symbols)
        for row, of in blocks
    )
    tables = frequencies(joint.reshape(contexts, symbols))
    coded = encode_blocks(blocks[::-1], tables, lanes)
    decoder = Decoder(memoryview(coded), tables, lanes)
    for row, of in blocks:
        assert (decoder.block(of) == row).all()
    decoder.finish()
    with pytest.raises(CodecError, match="does not give"):
        Decoder(memoryview(coded + b"ab"), tables, lanes).finish()


def test_a_rare_symbol_costs_its_information():
    symbols = np.zeros(100_000, np.uint8)
    symbols[::1000] = 1
    tables = frequencies(np.bincount(symbols)[None])
    coded = encode_blocks([(symbols, np.zeros(len(symbols), np.int64))], tables, 1)
    entropy = 100 * np.log2(1000) + 99_900 * np.log2(1000 / 999)
    assert 0.98 * entropy / 8 < len(coded) < 1.1 * entropy / 8 + 8


@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 40), st.floats(1 / 254, 0.9))
@settings(max_examples=40, deadline=None)
def test_roots_keep_their_bound(epochs, images, classes, step):
    labels = make_labels(epochs, images, classes, torch.float32, temperature=3.0, seed=epochs)
    codec = Roots(step)
    found = codec.decode(codec.encode(labels)).probabilities().double().sqrt()
    distance = (found - labels.probabilities().double().sqrt()).norm(dim=-1)
    assert float(distance.max()) <= 2 * step * classes**0.5 + 2e-3


def steady(epochs):
    """Labels of four images that hardly change from epoch to epoch."""
    still = make_labels(1, 4, 50, torch.float32, seed=3).logits
    noise = 0.1 * torch.randn(epochs, 4, 50, generator=torch.Generator().manual_seed(0))
    return Labels(still + noise, 2.0)


def test_labels_that_hardly_change_are_almost_free():
    codec = Roots(0.1)
    labels = steady(100)
    some, all_ = len(codec.encode(Labels(labels.logits[:50], 2.0))), len(codec.encode(labels))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    mixed = Labels(labels.logits.flatten(0, 1)[order].view(100, 4, 50), 2.0)
    assert all_ - some < 0.5 * (len(codec.encode(mixed)) - some)


def test_roots_lie_below_a_grid_on_logits():
    labels = make_labels(30, 20, 30, torch.float32, temperature=2.0, seed=1)
    exact = labels.probabilities().double()

    def rate(codec):
        payload = codec.encode(labels)
        found = codec.decode(payload).probabilities().double()
        return len(payload), float((exact * (exact / found).log()).sum(dim=-1).mean())

    coarse, fine = rate(Quantised(1.0)), rate(Roots(0.03))
    assert fine[0] < coarse[0]
    assert fine[1] < coarse[1]


def test_a_step_outside_its_range_is_refused():
    for step in (0.0, 1.0, 0.001):
        with pytest.raises(CodecError, match="step"):
            Roots(step)
