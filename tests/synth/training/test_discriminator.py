"""MEAL V2's discriminator: its formula by hand, and how it trains beside a student."""

import copy
import math

import pytest
import torch
from torch import nn

from synth.losses import soft_cross_entropy
from synth.parameters import parameter_vector
from synth.training.batches import Batch
from synth.training.discriminator import Discriminator, discriminator_loss
from synth.training.loop import TrainSettings, train
from synth.training.sharpness import Sharpness


@pytest.fixture
def told(generator):
    return Discriminator(3, 1.0, generator)


def test_layers_shrink_to_an_eighth_and_a_sixty_fourth(generator):
    found = Discriminator(1000, 1.0, generator)
    assert [(layer.in_features, layer.out_features) for layer in found.layers] == [
        (1000, 125),
        (125, 15),
        (15, 2),
    ]
    small = Discriminator(10, 1.0, generator)
    assert [layer.out_features for layer in small.layers] == [8, 8, 2]
    again = Discriminator(1000, 1.0, torch.Generator().manual_seed(generator.initial_seed()))
    assert torch.equal(parameter_vector(again), parameter_vector(found))


def test_loss_by_hand(told):
    # Layers that hand on the first outputs, so that the logits are relu(z_1) and relu(z_2) - 1.
    with torch.no_grad():
        for layer in told.layers:
            layer.bias.zero_()
            layer.weight.copy_(torch.eye(*layer.weight.shape))
        told.layers[-1].bias[1] = -1.0
    student, teacher = torch.tensor([[2.0, -1.0, 5.0]]), torch.tensor([[-3.0, 1.0, 0.0]])
    # Student: logits (2, -1) for (1, 0); teachers: (0, 0) for (0, 1).
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)) + 2 * math.log(2)) / 4
    loss = discriminator_loss(told, student, teacher)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-6)


def test_student_and_discriminator_descend_the_sum_of_both_losses(told, generator):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images = torch.randn(6, 1, 2, 2, generator=generator)
    labels = torch.randn(6, 3, generator=generator)
    told.weight = 0.5
    twin, other = copy.deepcopy(network), copy.deepcopy(told)
    how = TrainSettings(1, 0.1, momentum=0.0, weight_decay=0.0, temperature=2.0)
    (epoch,) = train(network, lambda _: [Batch(images, labels, 2)], how, told)

    outputs = twin(images)
    soft = soft_cross_entropy(outputs, labels, 2.0)
    loss = soft + 0.5 * discriminator_loss(other, outputs, labels)
    assert epoch.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    weights = [*twin.parameters(), *other.parameters()]
    moved = [p - 0.1 * g for p, g in zip(weights, torch.autograd.grad(loss, weights), strict=True)]
    after = [*network.parameters(), *told.parameters()]
    for found, expected in zip(after, moved, strict=True):
        torch.testing.assert_close(found.detach(), expected.detach(), atol=1e-6, rtol=1e-5)
    assert not torch.equal(parameter_vector(told), parameter_vector(other))


def test_sharpness_aware_gradients_are_refused(told):
    how = TrainSettings(1, 0.1, sharpness=Sharpness(0.1, 0.3))
    with pytest.raises(ValueError, match="leave out the sharpness"):
        list(train(nn.Linear(3, 3), lambda _: [], how, told))
