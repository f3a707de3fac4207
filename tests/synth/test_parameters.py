"""Flat parameter vectors, and where a synthetic set starts."""

import pytest
import torch

from synth.losses import hard_logits
from synth.matching.start import class_labels, draw_noise, draw_real, draw_uniform, starting_labels
from synth.parameters import call_with_vector, load_vector, parameter_layout, parameter_vector
from tests.synth.cases import build_registered


@pytest.fixture
def network():
    return build_registered("convnet2", size=(8, 8))


def test_parameter_layout_follows_named_parameters(network):
    layout = parameter_layout(network)
    vector = torch.arange(layout.count, dtype=torch.float32)
    named = layout.unflatten(vector)
    assert list(named) == [name for name, _ in network.named_parameters()]
    assert torch.equal(torch.cat([part.flatten() for part in named.values()]), vector)
    for name, parameter in network.named_parameters():
        assert named[name].shape == parameter.shape


def test_parameter_vector_is_a_copy(network):
    vector = parameter_vector(network)
    before = vector.clone()
    with torch.no_grad():
        network.head.bias.add_(1)
    assert torch.equal(vector, before)
    assert not vector.requires_grad


def test_load_vector_puts_back_what_parameter_vector_read(network, generator):
    vector = torch.randn(parameter_layout(network).count, generator=generator)
    load_vector(network, vector)
    assert torch.equal(parameter_vector(network), vector)


def test_call_with_vector_equals_a_network_that_holds_it(network, generator):
    layout = parameter_layout(network)
    vector = 0.1 * torch.randn(layout.count, generator=generator)
    images = torch.randn(2, 1, 8, 8, generator=generator)
    before = parameter_vector(network)
    found = call_with_vector(network, layout, vector, images)
    assert torch.equal(parameter_vector(network), before)
    load_vector(network, vector)
    # A norm with parameters of its own uses the native kernel, which rounds differently.
    torch.testing.assert_close(found, network(images))


@pytest.mark.parametrize("shape", [(3,), (2, 5), ()])
def test_parameter_layout_refuses_a_vector_of_another_shape(network, shape):
    with pytest.raises(ValueError, match=r"got a parameter vector of shape .*; this network needs"):
        parameter_layout(network).unflatten(torch.zeros(shape))


def test_class_labels_are_in_class_order():
    assert class_labels(3, 2).tolist() == [0, 0, 1, 1, 2, 2]


def test_draw_real_takes_different_images_of_each_class_in_order(generator):
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 0, 1, 2])
    chosen = draw_real(labels, 3, 2, generator)
    assert labels[chosen].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(chosen.tolist())) == 6


def test_draw_real_depends_on_the_seed_alone():
    labels = torch.arange(100) % 2

    def draw(seed):
        return draw_real(labels, 2, 10, torch.Generator().manual_seed(seed)).tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_draw_real_refuses_a_class_with_too_few_images(generator):
    labels = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match="class 1 has 1 training images, but ipc is 2; lower ipc"):
        draw_real(labels, 2, 2, generator)


@pytest.mark.parametrize("ipc", [0, -1])
def test_draw_real_refuses_an_ipc_below_one(ipc, generator):
    with pytest.raises(ValueError, match=f"ipc is {ipc}; it must be at least 1"):
        draw_real(torch.tensor([0, 1]), 2, ipc, generator)


def test_draw_noise_is_standard_normal_and_draw_uniform_lies_in_the_unit_interval(generator):
    noise = draw_noise((100, 1, 10, 10), generator)
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05
    uniform = draw_uniform((100, 1, 10, 10), generator)
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) <= 1
    assert abs(float(uniform.mean()) - 0.5) < 0.05


def test_starting_labels_lead_by_the_given_logit():
    labels = torch.tensor([1, 0])
    found = starting_labels(labels, 10, 4.0)
    torch.testing.assert_close(found, hard_logits(labels, 10) / hard_logits(labels, 10).max() * 4)
    # As the docstring says: 0.86 of the probability among ten.
    assert float(found.softmax(dim=1).max()) == pytest.approx(0.86, abs=0.005)
