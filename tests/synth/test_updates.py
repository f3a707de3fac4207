"""The moving average: against its closed form, and without ties to what it averages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.updates import Average


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.9999), st.integers(0, 20), st.integers(0, 1000))
def test_average_equals_its_closed_form(decay, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(steps + 1, 2, 3, generator=generator, dtype=torch.float64)
    average = Average(values[0], decay)
    for value in values[1:]:
        average = average.updated(value)
    # decay^t of the first value and (1 - decay) * decay^(t - i) of the i-th later one.
    weights = (1 - decay) * torch.tensor(decay, dtype=torch.float64) ** torch.arange(
        steps, -1, -1, dtype=torch.float64
    )
    weights[0] = decay**steps
    wanted = torch.einsum("t,tij->ij", weights, values)
    torch.testing.assert_close(average.value, wanted, rtol=1e-10, atol=1e-12)
    assert average.decay == decay


def test_decay_zero_follows_the_tensor():
    assert torch.equal(Average(torch.zeros(3), 0.0).updated(torch.ones(3)).value, torch.ones(3))


def test_average_is_untouched_by_updates_and_by_steps_in_place():
    images = torch.ones(2, 3, requires_grad=True)
    first = Average(images, 0.5)
    second = first.updated(images)
    with torch.no_grad():
        images.mul_(5)
    third = second.updated(images)
    assert (first.value == 1).all()
    assert (second.value == 1).all()
    assert (third.value == 3).all()
    assert not third.value.requires_grad


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_average_refuses_a_decay_outside_its_range(decay):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        Average(torch.zeros(1), decay)


def test_average_refuses_another_shape():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        Average(torch.zeros(3), 0.9).updated(torch.zeros(2))
