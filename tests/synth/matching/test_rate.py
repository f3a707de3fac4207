"""Matching under a budget: the multiplier finds it, and a step goes down both terms."""

import pytest
import torch

from synth.coding import Frequency
from synth.matching.rate import Rate, rate_step


def quadratic(images):
    return 10 * images.square().sum()


def test_step_goes_down_the_bits_as_far_as_the_multiplier_says():
    images, moved = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    rate = Rate(quadratic, budget=float(quadratic(images)), speed=0.5)
    stepped, following, bits = rate_step(images, moved, torch.tensor(0.5), rate)
    assert bits == pytest.approx(rate.budget)
    # At the budget the multiplier stays where it is.
    assert float(following) == pytest.approx(0.5)
    length = 0.5 * (moved - images).norm()
    torch.testing.assert_close(stepped, moved - length * images / images.norm())


def test_first_step_is_a_share_of_that_down_the_distance():
    images, moved = torch.randn(8), torch.randn(8)
    rate = Rate(quadratic, budget=float(quadratic(images)), share=0.25)
    stepped, _, _ = rate_step(images, moved, torch.tensor(0.0), rate)
    length = float((stepped - moved).norm())
    assert length == pytest.approx(0.25 * float((moved - images).norm()))


@pytest.mark.parametrize("budget", [100.0, 180.0])
def test_descent_with_a_multiplier_ends_at_the_budget(budget):
    """Images drawn to a target by their distance, and to fewer bits by the rate."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(6, 1, 8, 8, generator=generator)
    coding = Frequency((6, 1, 8, 8), step=0.3)
    images, multiplier = coding.start(target), torch.tensor(0.0)
    rate = Rate(coding.bits, budget, speed=0.1)
    free = float(coding.bits(images))
    assert free > budget, free
    taken = []
    for _ in range(400):
        stored = images.requires_grad_()
        distance = (coding.decode(stored) - target).square().sum()
        (gradient,) = torch.autograd.grad(distance, stored)
        images = images.detach()
        moved = images - 0.03 * gradient / gradient.square().mean().sqrt()
        images, multiplier, bits = rate_step(images, moved, multiplier, rate)
        taken.append(bits)
    assert sum(taken[-50:]) / 50 == pytest.approx(budget, rel=0.1)


def test_a_budget_below_one_bit_is_refused():
    with pytest.raises(ValueError, match="budget is 0"):
        Rate(quadratic, 0)
