"""The student learning rate that matching begins with."""

import math

import pytest
import torch

from synth.losses import hard_logits
from synth.matching.inner_loop import make_inner_loop
from synth.matching.start import class_labels
from synth.matching.start_rate import (
    FACTOR,
    bearable_rate,
    expected_rate,
    following_rate,
    mean_distance,
)
from synth.matching.state import initial_state
from synth.networks import MLP
from synth.parameters import parameter_vector


def valley(best):
    """A distance whose least value lies at a rate."""
    return lambda rate: math.log(rate / best) ** 2


@pytest.mark.parametrize("guess", [0.003, 0.02, 0.3])
def test_rate_with_the_least_distance_is_found_from_either_side(guess):
    found = following_rate(valley(0.02), guess)
    assert 0.02 / math.sqrt(FACTOR) <= found <= 0.02 * math.sqrt(FACTOR)


def test_rate_is_climbed_down_to_where_students_no_longer_overflow():
    assert following_rate(lambda rate: math.inf if rate > 0.05 else -rate, 0.2) <= 0.05


def test_rate_stays_within_the_bounds_of_matching():
    assert following_rate(lambda rate: -rate, 50.0) == 1.0
    assert following_rate(lambda rate: rate, 2e-5) >= 1e-5


def test_guess_that_is_no_rate_is_refused():
    with pytest.raises(ValueError, match=r"is 0\.0; it must be above 0"):
        following_rate(valley(0.1), 0.0)


def test_rate_that_a_set_bears_is_kept_and_a_larger_one_lowered():
    assert bearable_rate(lambda rate: 0.9, 0.1) == 0.1
    lowered = bearable_rate(lambda rate: rate / 0.03, 0.1)
    assert 0.033 / FACTOR < lowered <= 0.033


def test_set_that_leads_a_little_away_at_every_rate_keeps_one_that_moves_students():
    # One image per class of CIFAR-10: no rate is below 1, and 0.00036 would be the first that is.
    measured = {0.01373: 1.0871, 0.00915: 1.0520, 0.00610: 1.0303, 0.00407: 1.0174}
    found = bearable_rate(lambda rate: measured[round(rate, 5)], 0.01373)
    assert found == 0.01373


def test_set_that_bears_no_rate_gets_the_one_that_harms_least():
    assert bearable_rate(lambda rate: 2 + rate, 0.1) == pytest.approx(0.1 / FACTOR**11)


def test_plain_steps_follow_an_expert_of_the_same_steps_at_its_own_rate_alone(generator):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(1, (4, 4), 3, depth=1, width=8)
    labels = class_labels(3, 8)
    images = torch.randn(24, 1, 4, 4, generator=generator)
    batches = list(torch.randperm(24, generator=generator).split(6))
    loop = make_inner_loop(network, images, hard_logits(labels, 3), batches, None)
    start = target = parameter_vector(network)
    for step in range(len(batches)):
        target = target - 0.1 * loop.gradient(step, target)

    def distance(rate):
        return mean_distance([(loop, start, target)], rate)

    assert distance(0.1) < 1e-10
    assert distance(0.001) == pytest.approx(1, abs=0.1)
    assert following_rate(distance, 0.1 / FACTOR**3) == pytest.approx(0.1)
    assert mean_distance([(loop, start, target)], 1e30) == math.inf


def test_expected_rate_goes_as_far_as_the_expert():
    # 36 steps of 0.01, each of which momentum carries twice as far, by 20 steps.
    assert expected_rate(0.01, 0.5, 36, 20) == pytest.approx(0.036)


def test_each_network_begins_with_a_rate_of_its_own():
    images, labels = torch.zeros(2, 1, 4, 4), torch.zeros(2, 3)
    state = initial_state(images, labels, [0.1, 0.02], 2)
    assert state.now.log_student_lr.exp().tolist() == pytest.approx([0.1, 0.02])
    with pytest.raises(ValueError, match="got 1 student learning rates for 2 networks"):
        initial_state(images, labels, [0.1], 2)
    with pytest.raises(ValueError, match=r"learning rate is 0\.0"):
        initial_state(images, labels, [0.1, 0.0], 2)
