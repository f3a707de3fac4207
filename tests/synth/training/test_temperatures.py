"""LPQLD's temperatures: the labels' by epoch, and the student's own."""

import math

import pytest
import torch
from torch import nn

from synth.losses import soft_cross_entropy
from synth.training.batches import Batch
from synth.training.loop import TrainSettings, train
from synth.training.temperatures import Annealing, calibrated_temperature


def test_steps_by_hand():
    # The published setting: from 20, a factor of 0.7 every 30 of 300 epochs.
    found = Annealing("step", 30, 0.7)
    expected = {0: 20, 29: 20, 30: 14, 59: 14, 60: 9.8, 299: 20 * 0.7**9}
    for epoch, temperature in expected.items():
        assert found.at(20.0, epoch, 300) == pytest.approx(temperature)


def test_cosine_by_hand():
    found = Annealing("cosine", least=2.0)
    expected = {0: 20, 5: 11, 10: 2 + 18 * 0.5 * (1 + math.cos(math.pi)), 2: 18.2811529}
    for epoch, temperature in expected.items():
        assert found.at(20.0, epoch, 10) == pytest.approx(temperature)


def test_soft_loss_with_two_temperatures_by_hand():
    student, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    # Labels (3/4, 1/4) at temperature 2; student (e^2, 1) / (e^2 + 1) at 0.5.
    loss = soft_cross_entropy(student, labels, 2.0, 0.5)
    logs = -math.log(1 + math.exp(-2)), -2 - math.log(1 + math.exp(-2))
    assert float(loss) == pytest.approx(-(0.75 * logs[0] + 0.25 * logs[1]), abs=1e-6)
    same = soft_cross_entropy(student, labels, 2.0, 2.0)
    assert torch.equal(same, soft_cross_entropy(student, labels, 2.0))


@pytest.mark.parametrize("scale", [0.05, 0.37, 1.0])
def test_calibration_finds_the_scale_of_the_student(scale, generator):
    labels = torch.randn(7, 4, generator=generator)
    assert calibrated_temperature(scale * labels / 3, labels, 3.0) == pytest.approx(scale)


def test_calibration_is_the_least_loss_of_the_grid(generator):
    logits, labels = torch.randn(2, 5, 3, generator=generator)
    losses = [float(soft_cross_entropy(logits, labels, 2.0, s / 100)) for s in range(1, 101)]
    found = calibrated_temperature(logits, labels, 2.0)
    assert found == pytest.approx((losses.index(min(losses)) + 1) / 100)


def linear():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for values in network.parameters():
            values.copy_(torch.linspace(-2, 3, values.numel()).view_as(values).sin())
    return network


def losses_of(settings, batches):
    return [epoch.loss for epoch in train(linear(), lambda _: batches, settings)]


def test_training_reads_labels_at_the_temperature_of_the_epoch(generator):
    images = torch.randn(6, 1, 2, 2, generator=generator)
    labels = 4 * torch.randn(6, 3, generator=generator)
    # With a learning rate of almost nothing, all epochs see the same network.
    how = TrainSettings(3, 1e-12, temperature=8.0, annealing=Annealing("step", 1, 0.5))
    logits = linear()(images).detach()
    expected = [float(soft_cross_entropy(logits, labels, t)) for t in (8.0, 4.0, 2.0)]
    assert losses_of(how, [Batch(images, labels)]) == pytest.approx(expected, rel=1e-5)


def test_training_calibrates_on_the_last_batch_of_an_epoch(generator):
    images = torch.randn(8, 1, 2, 2, generator=generator)
    logits = linear()(images).detach()
    # Of the last four images the student is three times too flat, of the others it is not.
    labels = 5 * logits * torch.tensor([1.0] * 4 + [3.0] * 4)[:, None]
    batches = [Batch(images[:4], labels[:4]), Batch(images[4:], labels[4:], 2)]
    how = TrainSettings(2, 1e-12, temperature=5.0, calibrated=True)
    own = calibrated_temperature(logits[4:], labels[4:], 5.0)
    assert own == pytest.approx(0.33)
    expected = [float(soft_cross_entropy(logits, labels, 5.0, s)) for s in (1.0, own)]
    assert losses_of(how, batches) == pytest.approx(expected, rel=1e-5)


def test_calibration_goes_with_the_soft_loss_alone():
    with pytest.raises(ValueError, match="go with the soft loss"):
        TrainSettings(1, 0.1, loss="cosine", calibrated=True)
