"""The sampled tail: unbiased, and of the stated spread."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from projectors.codecs import CodecError, Labels, SampledTopK, TopK
from tests.projectors.codecs.checks import make_labels

REPEATS = 4000


@pytest.mark.parametrize(("kept", "draws"), [(0, 1), (0, 5), (2, 1), (2, 4)])
def test_the_mean_over_many_samples_is_the_label(kept, draws):
    labels = make_labels(1, 2, 12, torch.float32, temperature=3.0, seed=1)
    exact = labels.probabilities()[0].double()
    # Rows of one encoding are drawn independently: repeat the label instead of the seed.
    repeated = Labels(labels.logits.repeat(REPEATS, 1, 1), 3.0)
    codec = SampledTopK(kept, draws, seed=11)
    samples = codec.decode(codec.encode(repeated)).probabilities().double()
    error = samples.std(dim=0) / REPEATS**0.5
    slack = 5 * error + 2**-11 * exact + 1e-6 + kept * 2**-11 / 12
    assert ((samples.mean(dim=0) - exact).abs() <= slack).all()
    values, _ = exact.topk(kept, dim=-1)
    share = (1 - values.sum(dim=-1)) / draws
    assert ((samples - exact).abs().amax(dim=(0, 2)) <= share + 1e-3).all()


def test_the_mean_over_many_seeds_is_the_label():
    labels = make_labels(1, 3, 8, torch.float32, temperature=3.0, seed=2)
    exact = labels.probabilities().double()
    codecs = [SampledTopK(1, 2, seed=seed) for seed in range(400)]
    samples = torch.stack([codec.decode(codec.encode(labels)).probabilities() for codec in codecs])
    error = samples.double().std(dim=0) / len(codecs) ** 0.5
    assert ((samples.double().mean(dim=0) - exact).abs() <= 5 * error + 5e-4).all()


def test_dropping_the_tail_is_biased_where_sampling_it_is_not():
    labels = make_labels(1, 1, 12, torch.float32, temperature=3.0, seed=1)
    exact = labels.probabilities()
    codec = TopK(2, "renormalised")
    top = exact.argmax()
    assert codec.decode(codec.encode(labels)).probabilities().flatten()[top] > 1.1 * exact.max()


def test_a_class_of_no_probability_is_never_drawn():
    logits = torch.tensor([[[0.0, -3000.0, 0.0, -3000.0]]]).repeat(500, 1, 1)
    codec = SampledTopK(0, 2, seed=0)
    drawn = codec.decode(codec.encode(Labels(logits))).probabilities()
    assert drawn[..., [1, 3]].max() < 1e-7


def test_kept_classes_are_exact_and_never_drawn():
    labels = make_labels(3, 4, 9, torch.float32, seed=4)
    exact = labels.probabilities()
    codec = SampledTopK(2, 5, seed=0)
    decoded = codec.decode(codec.encode(labels)).probabilities()
    values, classes = exact.topk(2, dim=-1)
    torch.testing.assert_close(decoded.gather(-1, classes), values, rtol=2**-10, atol=1e-6)


def test_the_seed_decides_the_samples():
    labels = make_labels(2, 3, 50, temperature=4.0)
    assert SampledTopK(1, 3, 0).encode(labels) != SampledTopK(1, 3, 1).encode(labels)


def test_no_tail_is_refused():
    with pytest.raises(CodecError, match="kept=5 of 5"):
        SampledTopK(5, 1).encode(make_labels(1, 2, 5))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(0, 2**31), st.integers(5, 12))
def test_sampled_topk_keeps_its_bound(kept, draws, seed, classes):
    labels = make_labels(2, 3, classes, torch.float32, seed=seed)
    exact = labels.probabilities().double()
    codec = SampledTopK(kept=kept, draws=draws, seed=seed)
    found = codec.decode(codec.encode(labels)).probabilities().double()
    head = exact.topk(kept, dim=-1).indices
    mass = exact.scatter(-1, head, 0.0).sum(dim=-1, keepdim=True)
    rounding = (kept + 1) * 2**-11 + classes * 2**-26
    assert ((found - exact).abs() <= mass / draws + rounding).all()
    torch.testing.assert_close(found.gather(-1, head), exact.gather(-1, head), rtol=2e-3, atol=1e-6)
