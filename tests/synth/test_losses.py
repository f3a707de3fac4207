"""Losses between logits."""

import pytest
import torch
from torch.nn import functional

from synth.losses import HARD_LOGIT, hard_logits, log_softmax, soft_cross_entropy


@pytest.fixture
def logits(generator):
    return 3 * torch.randn(6, 5, generator=generator, dtype=torch.float64)


@pytest.fixture
def label_logits(generator):
    return 2 * torch.randn(6, 5, generator=generator, dtype=torch.float64)


def test_log_softmax_equals_the_native_one(logits):
    torch.testing.assert_close(log_softmax(logits), logits.log_softmax(dim=-1))
    torch.testing.assert_close(log_softmax(logits[0]), logits[0].log_softmax(dim=-1))


def test_log_softmax_survives_huge_logits():
    found = log_softmax(torch.tensor([[1e5, 0.0, -1e5]]))
    assert torch.equal(found, torch.tensor([[0.0, -1e5, -2e5]]))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_log_softmax_has_right_derivatives_of_both_orders(logits):
    small = logits[:2, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(log_softmax, (small,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(log_softmax, (small,), check_fwd_over_rev=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_cross_entropy_equals_cross_entropy_with_probabilities(
    logits, label_logits, temperature
):
    probabilities = (label_logits / temperature).softmax(dim=1)
    expected = functional.cross_entropy(logits / temperature, probabilities)
    found = soft_cross_entropy(logits, label_logits, temperature)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_cross_entropy_has_the_gradient_of_the_kl_divergence(
    logits, label_logits, temperature
):
    point = logits.clone().requires_grad_()
    loss = soft_cross_entropy(point, label_logits, temperature)
    (found,) = torch.autograd.grad(loss, point)
    divergence = functional.kl_div(
        (point / temperature).log_softmax(dim=1),
        (label_logits / temperature).softmax(dim=1),
        reduction="batchmean",
    )
    (expected,) = torch.autograd.grad(divergence, point)
    torch.testing.assert_close(found, expected)


def test_soft_cross_entropy_has_a_right_gradient_in_the_labels(logits, label_logits):
    inputs = (logits[:2].clone().requires_grad_(), label_logits[:2].clone().requires_grad_())
    assert torch.autograd.gradcheck(soft_cross_entropy, inputs)
    assert torch.autograd.gradgradcheck(soft_cross_entropy, inputs)


def test_soft_cross_entropy_is_least_at_the_labels(label_logits, logits):
    best = soft_cross_entropy(label_logits, label_logits)
    assert best < soft_cross_entropy(logits, label_logits)


def test_hard_logits_are_one_hot_under_softmax():
    labels = torch.tensor([2, 0, 1, 2])
    found = hard_logits(labels, 3)
    assert found.shape == (4, 3)
    assert found.dtype == torch.float32
    assert float(found.max()) == HARD_LOGIT
    expected = functional.one_hot(labels, 3).float()
    torch.testing.assert_close(found.softmax(dim=1), expected, atol=1e-12, rtol=0)


def test_hard_logits_make_the_plain_cross_entropy(logits):
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    found = soft_cross_entropy(logits, hard_logits(labels, 5).double())
    torch.testing.assert_close(found, functional.cross_entropy(logits, labels))
