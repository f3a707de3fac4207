"""Training with rounded weights: what is computed, what is trained, and what is kept."""

import torch
from torch import nn

from synth.images import HardLogits
from synth.networks import ConvNet
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.rounding import RoundedNetwork


def coarse(weight):
    """Multiples of a quarter."""
    return (weight * 4).round() / 4


def network():
    torch.manual_seed(0)
    return ConvNet(1, (8, 8), 3, depth=2, width=4, norm="batch")


def rounded_by_hand(exact):
    own = network()
    own.load_state_dict(
        {
            name: coarse(value) if name.endswith("weight") and value.dim() > 1 else value
            for name, value in exact.state_dict().items()
        }
    )
    return own


def test_it_computes_and_differentiates_as_the_rounded_network_does():
    exact, images = network(), torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    by_hand, rounded = rounded_by_hand(exact), RoundedNetwork(exact, coarse)
    wanted, found = by_hand(images), rounded(images)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, exact(images))
    wanted.square().sum().backward()
    exact.zero_grad()
    found.square().sum().backward()
    for mine, theirs in zip(exact.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_its_state_is_the_networks_own_with_rounded_weights():
    exact = network()
    rounded = RoundedNetwork(exact, coarse)
    exact(torch.randn(4, 1, 8, 8))
    state = rounded.rounded_state()
    assert list(state) == list(exact.state_dict())
    own = network()
    own.load_state_dict(state)
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(own.eval()(images), rounded.eval()(images))


def test_training_with_it_makes_good_what_rounding_costs():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 1, 8, 8, generator=generator)
    labels = torch.arange(90) % 3
    images = centres[labels] + torch.randn(90, 1, 8, 8, generator=generator)

    def third(weight):
        """-1, 0 or 1 times the largest: two bits."""
        scale = weight.abs().amax()
        return (weight / scale).round() * scale

    def trained(model, epochs):
        soft = HardLogits(labels, 3)
        batches = lambda epoch: shuffled_batches(images, soft, 30, None, generator)  # noqa: E731
        for _ in train(model, batches, TrainSettings(epochs, 0.05)):
            pass
        return model

    def loss(model):
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model.eval()(images), labels))

    torch.manual_seed(0)
    exact = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3)), 20)
    rounded = loss(RoundedNetwork(exact, third))
    assert loss(exact) < rounded
    assert loss(trained(RoundedNetwork(exact, third), 20)) < 0.5 * rounded
