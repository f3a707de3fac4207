"""Compiled training computes what eager training does, up to rounding."""

import pytest
import torch

from synth.compiling import CompiledNetwork, find_compiler
from synth.images import HardLogits
from synth.networks import ConvNet
from synth.parameters import parameter_vector
from synth.training.batches import shuffled_batches
from synth.training.loop import TrainSettings, train

compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")


def make_network():
    torch.manual_seed(0)
    return ConvNet(1, (8, 8), 3, depth=2, width=4, norm="instance")


def trained(compiled):
    network = make_network()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(10, 1, 8, 8, generator=generator)
    soft = HardLogits(torch.arange(10) % 3, 3)
    settings = TrainSettings(2, 0.05, weight_decay=0.0, compiled=compiled)
    # Batches of 4, 4 and 2: the last one is not compiled.
    batches = train(
        network, lambda epoch: shuffled_batches(images, soft, 4, None, generator), settings
    )
    losses = [epoch.loss for epoch in batches]
    return losses, parameter_vector(network)


@pytest.mark.slow
@compiler
def test_compiled_training_is_eager_training_up_to_rounding():
    eager, compiled = trained(False), trained(True)
    assert compiled[0] == pytest.approx(eager[0], rel=1e-5)
    torch.testing.assert_close(compiled[1], eager[1], rtol=1e-4, atol=1e-6)


def test_only_batches_of_the_first_shape_are_compiled(monkeypatch):
    asked = []
    network = make_network()
    monkeypatch.setattr(torch, "compile", lambda module, **options: asked.append or module)
    call = CompiledNetwork(network)
    monkeypatch.setattr(call, "_compiled", lambda images: asked.append(images) or network(images))
    for count in (4, 2, 4):
        assert call(torch.zeros(count, 1, 8, 8)).shape == (count, 3)
    assert [len(images) for images in asked] == [4, 4]
