"""The error bound that each codec states."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from projectors.codecs import CodecError, Dense, Hard, Labels, LowRank, Quantised, TopK, TwoScalars
from tests.projectors.codecs import checks

FLOOR = 2.0**-26
examples = settings(max_examples=30, deadline=None, derandomize=True, database=None)
few_labels = npst.arrays(
    "float32",
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(3, 7)),
    elements=st.floats(-30, 30, width=32),
).map(lambda logits: torch.from_numpy(logits.copy()))
temperatures = st.sampled_from([0.5, 1.0, 4.0, 20.0])


def round_trip(codec, logits, temperature=1.0):
    return codec.decode(codec.encode(Labels(logits, temperature)))


@examples
@given(few_labels)
def test_dense_rounds_within_its_bound(logits):
    size = logits.abs()
    for dtype, bound in (
        ("float16", (2**-11 * size).clamp_min(2**-25)),
        ("bfloat16", 2**-8 * size),
        ("int8", size.amax(dim=-1, keepdim=True) / 253 + 2**-25),
    ):
        error = (round_trip(Dense(dtype), logits).logits - logits).abs()
        assert (error <= bound + 1e-6 * size + 1e-37).all(), dtype


def test_float16_labels_survive_dense_float16_exactly():
    labels = checks.make_labels(2, 3, 10)
    assert torch.equal(Dense().decode(Dense().encode(labels)).logits, labels.logits)


@examples
@given(few_labels, temperatures, st.sampled_from(["marginal", "renormalised"]))
def test_topk_keeps_the_largest_probabilities(logits, temperature, tail):
    exact = torch.softmax(logits.double() / temperature, dim=-1)
    values, classes = exact.topk(2, dim=-1)
    probabilities = round_trip(TopK(2, tail), logits, temperature).probabilities().double()
    mass = values.sum(dim=-1, keepdim=True)
    expected = values if tail == "marginal" else values / mass
    kept = probabilities.gather(-1, classes)
    assert torch.allclose(kept, expected, rtol=2**-10, atol=2e-7)
    rest = (1 - mass) / (logits.shape[-1] - 2) if tail == "marginal" else torch.zeros_like(mass)
    others = probabilities.scatter(-1, classes, -1)
    others = others[others >= 0].reshape(*logits.shape[:2], -1)
    assert (others - rest).abs().max() <= 2**-10 + 1e-6


@examples
@given(few_labels)
def test_plain_topk_keeps_the_largest_logits_over_the_mean(logits):
    centred = logits - logits.mean(dim=-1, keepdim=True)
    values, classes = centred.topk(2, dim=-1)
    decoded = round_trip(TopK(2, "plain"), logits).logits
    assert torch.allclose(decoded.gather(-1, classes), values, rtol=2**-11, atol=1e-5)
    assert (decoded != 0).sum() <= values.numel()


def test_topk_entries_are_float16_of_the_probabilities():
    exact = torch.tensor([[[0.5, 0.25, 0.125, 0.0625, 0.0625]]])
    marginal = round_trip(TopK(2), exact.log()).probabilities()
    torch.testing.assert_close(marginal[0, 0], torch.tensor([0.5, 0.25] + [0.25 / 3] * 3))
    renormalised = round_trip(TopK(2, "renormalised"), exact.log()).probabilities()
    torch.testing.assert_close(
        renormalised[0, 0], torch.tensor([2 / 3, 1 / 3, 0, 0, 0]), rtol=1e-6, atol=2 * FLOOR
    )


def test_topk_refuses_k_without_a_tail():
    labels = checks.make_labels(1, 2, 5)
    with pytest.raises(CodecError, match=r"k=5 of 5 classes.*use Dense"):
        TopK(5).encode(labels)


@examples
@given(few_labels, st.sampled_from([0.01, 0.3, 1, 7.5]), st.sampled_from(["lzma", "zlib"]))
def test_quantised_logits_are_off_by_half_a_step(logits, step, coder):
    decoded = round_trip(Quantised(step, coder), logits, temperature=2.0)
    error = (decoded.logits - logits).abs().max()
    assert error <= step / 2 + 1e-5
    factors = decoded.probabilities().double() / Labels(logits, 2.0).probabilities().double()
    assert factors.log().abs().max() <= step / 2.0 + 1e-3


def test_quantised_refuses_logits_beyond_its_integers():
    with pytest.raises(CodecError, match="raise step"):
        Quantised(1e-6).encode(Labels(torch.full((1, 1, 2), 1e6)))


@examples
@given(few_labels, st.integers(1, 3))
def test_low_rank_is_the_best_of_its_rank(logits, rank):
    rank = min(rank, *logits.flatten(0, 1).shape)
    rows = (logits - logits.mean(dim=-1, keepdim=True)).double().flatten(0, 1)
    left, singular, right = torch.linalg.svd(rows, full_matrices=False)
    best = singular[rank:].square().sum().sqrt()
    decoded = round_trip(LowRank(rank), logits).logits.double().flatten(0, 1)
    rounding = 2**-10 * (1 + 2**-12) * singular[:rank].sum()
    assert (decoded - rows).norm() <= best + rounding + 1e-3
    assert left.shape[1] == right.shape[0]


def test_low_rank_refuses_more_than_there_is():
    labels = checks.make_labels(1, 2, 5)
    with pytest.raises(CodecError, match="lower it to at most 2"):
        LowRank(3).encode(labels)


@examples
@given(few_labels)
def test_hard_keeps_the_top_class(logits):
    decoded = round_trip(Hard(), logits)
    assert torch.equal(decoded.logits.argmax(dim=-1), logits.argmax(dim=-1))
    assert decoded.probabilities().max(dim=-1).values.min() >= 1 - 7 * FLOOR


@examples
@given(few_labels, temperatures)
def test_two_scalars_keep_the_top_probability(logits, temperature):
    exact = Labels(logits, temperature).probabilities().double()
    top = exact.argmax(dim=-1, keepdim=True)
    odds = torch.logit(exact.gather(-1, top), eps=1e-15)
    decoded = round_trip(TwoScalars(), logits, temperature).probabilities().double()
    difference = (decoded.gather(-1, top) - exact.gather(-1, top)).abs()
    # A probability moves by at most a quarter of what its log-odds move by.
    assert (difference <= odds.abs() * 2**-13 + 1e-6).all()


def test_two_scalars_choose_the_sharpness_of_least_divergence():
    labels = checks.make_labels(6, 10, 4, torch.float32)
    exact = labels.probabilities().double().flatten(0, 1)
    decoded = TwoScalars().decode(TwoScalars().encode(labels)).probabilities().double()
    rebuilt = decoded.flatten(0, 1)
    divergence = torch.nn.functional.kl_div(rebuilt.log(), exact, reduction="none").sum(dim=1)
    tops = exact.argmax(dim=1, keepdim=True)
    rest = rebuilt.scatter(1, tops, 0.0)
    for power in (0.9, 1.1):
        other = rest.pow(power)
        other = other / other.sum(1, keepdim=True) * rest.sum(1, keepdim=True)
        other = other.scatter_add(1, tops, rebuilt.gather(1, tops))
        changed = torch.nn.functional.kl_div(other.log(), exact, reduction="none").sum(dim=1)
        assert (divergence <= changed + 1e-5).all()


def test_two_scalars_rebuild_labels_that_follow_their_class():
    shape = torch.tensor([0.0, 1.0, -1.0, 0.0])
    sharpness = torch.tensor([0.5, 1.0, 1.5])[:, None]
    logits = sharpness * shape
    logits[:, 0] = torch.tensor([4.0, 5.0, 6.0])
    decoded = round_trip(TwoScalars(), logits[None])
    expected = torch.softmax(logits, dim=-1)
    torch.testing.assert_close(decoded.probabilities()[0], expected, rtol=5e-3, atol=1e-6)
    assert math.isclose(decoded.probabilities()[0].sum(), 3.0, rel_tol=1e-5)
