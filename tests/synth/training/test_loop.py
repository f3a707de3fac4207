"""Training of networks on batches with soft labels."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from synth.augment import Augmentation
from synth.losses import hard_logits
from synth.matching.start import class_labels
from synth.networks import MLP
from synth.parameters import parameter_vector
from synth.training.batches import Batch, shuffled_batches, split_batches, split_parts
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy, predict


@pytest.fixture
def heaps(generator):
    """Images [60, 1, 4, 4] in three separable heaps, and their classes."""
    labels = class_labels(3, 20)
    centres = torch.randn(3, 1, 4, 4, generator=generator)
    return centres[labels] + 0.3 * torch.randn(60, 1, 4, 4, generator=generator), labels


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(1, (4, 4), 3, depth=1, width=8)


def epochs_of(heaps, seed=0, augmentation=None):
    """A function of the epoch that draws its batches."""
    images, labels = heaps
    generator = torch.Generator().manual_seed(seed)
    targets = hard_logits(labels, 3)
    return lambda epoch: shuffled_batches(images, targets, 16, augmentation, generator)


@pytest.mark.parametrize(
    ("optimizer", "lr"),
    [("sgd", 0.1), ("adamw", 0.05), ("muon", 0.05)],
    ids=["sgd", "adamw", "muon"],
)
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_train_fits_separable_classes(network, heaps, optimizer, lr, schedule):
    how = TrainSettings(10, lr, optimizer=optimizer, schedule=schedule)
    epochs = list(train(network, epochs_of(heaps), how))
    assert [epoch.index for epoch in epochs] == list(range(1, 11))
    assert epochs[-1].loss < 0.2 * epochs[0].loss
    assert accuracy(network, *heaps) == 1.0


def test_train_is_the_same_twice_and_another_with_another_seed(network, heaps):
    def trained(seed):
        twin = copy.deepcopy(network)
        losses = [e.loss for e in train(twin, epochs_of(heaps, seed), TrainSettings(3, 0.1))]
        return parameter_vector(twin), losses

    (first, losses), (again, same_losses), (other, _) = trained(1), trained(1), trained(2)
    assert torch.equal(first, again)
    assert losses == same_losses
    assert not torch.equal(first, other)


def test_train_reports_the_mean_loss_over_images(heaps):
    images, labels = heaps
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    targets = hard_logits(labels, 3)
    batches = [Batch(images[:50], targets[:50]), Batch(images[50:], targets[50:])]
    expected = nn.functional.cross_entropy(network(images), labels)
    # With a learning rate of almost nothing, all batches see the same network.
    (epoch,) = train(network, lambda epoch: batches, TrainSettings(1, 1e-12))
    assert epoch.loss == pytest.approx(float(expected.detach()), rel=1e-5)


def test_train_hands_each_epoch_its_number(network, heaps):
    asked = []

    def batches(epoch):
        asked.append(epoch)
        return epochs_of(heaps)(epoch)

    list(train(network, batches, TrainSettings(3, 0.1)))
    assert asked == [0, 1, 2]


def test_train_puts_the_network_in_training_mode(network, heaps):
    network.eval()
    for _ in train(network, epochs_of(heaps), TrainSettings(2, 0.1)):
        assert network.training
        network.eval()


def test_train_decays_matrices_only():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    before = copy.deepcopy(network[1])
    # Zero images whose labels are the bias itself have no gradient: decay alone acts.
    batch = Batch(torch.zeros(2, 1, 2, 2), before.bias.detach().expand(2, 3))
    how = TrainSettings(1, 0.1, momentum=0.0, weight_decay=0.5, schedule="constant")
    list(train(network, lambda epoch: [batch], how))
    torch.testing.assert_close(network[1].weight, 0.95 * before.weight)
    torch.testing.assert_close(network[1].bias, before.bias)


def test_train_lowers_the_lr_along_half_a_cosine():
    network = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        network.weight.fill_(1.0)
    # Equal weights give equal logits, as the labels have, so only decay acts: w *= 1 - lr.
    batch = Batch(torch.ones(1, 1), torch.zeros(1, 2))
    how = TrainSettings(4, 0.5, momentum=0.0, weight_decay=1.0, schedule="cosine")
    values = [1.0]
    for _ in train(network, lambda epoch: [batch], how):
        values.append(float(network.weight.detach()[0, 0]))
    rates = [1 - after / before for before, after in itertools.pairwise(values)]
    expected = [0.25 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert rates == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("epochs", "whole"), [(4, 2), (5, 3), (1, 1)])
def test_the_rate_falls_to_a_tenth_from_half_of_the_epochs_on(epochs, whole):
    how = TrainSettings(epochs, 0.5, schedule="step")
    rates = [how.lr_at(epoch) for epoch in range(epochs)]
    assert rates == pytest.approx([0.5] * whole + [0.05] * (epochs - whole))


def test_train_stops_at_a_loss_that_is_not_finite(network, heaps):
    images, labels = heaps
    batch = Batch(images * float("nan"), hard_logits(labels, 3))
    with pytest.raises(FloatingPointError, match=r"training loss is nan in epoch 1; lower the"):
        list(train(network, lambda epoch: [batch], TrainSettings(2, 0.1)))


def test_train_stops_when_it_diverges(network, heaps):
    with pytest.raises(FloatingPointError, match=r"in epoch \d+; lower the learning rate"):
        list(train(network, epochs_of(heaps), TrainSettings(10, 1e30)))


def test_train_refuses_an_unknown_optimizer(network, heaps):
    with pytest.raises(ValueError, match="optimizer is 'lion'; choose sgd, adam, adamw or muon"):
        list(train(network, epochs_of(heaps), TrainSettings(1, 0.1, optimizer="lion")))


@given(count=st.integers(1, 200), batch_size=st.integers(2, 50))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_split_batches_covers_every_place_once_and_leaves_none_alone(count, batch_size):
    parts = split_batches(count, batch_size)
    places = list(range(count))
    assert [place for part in parts for place in places[part]] == places
    lengths = [len(places[part]) for part in parts]
    assert max(lengths) <= batch_size + 1
    assert min(lengths) > 1 or count == 1


def test_split_batches_joins_a_last_batch_of_one():
    assert split_batches(9, 4) == [slice(0, 4), slice(4, 9)]
    assert split_batches(10, 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]


def test_shuffled_batches_show_every_image_once_beside_its_label(heaps, generator):
    images, labels = heaps
    batches = list(shuffled_batches(images, hard_logits(labels, 3), 16, None, generator))
    seen = torch.cat([batch.images for batch in batches])
    found = torch.cat([batch.labels for batch in batches]).argmax(dim=1)
    places = [int((images == image).flatten(1).all(dim=1).nonzero()) for image in seen]
    assert sorted(places) == list(range(60))
    assert places != sorted(places)
    assert torch.equal(labels[places], found)


def test_shuffled_batches_augment_each_batch(heaps):
    images, labels = heaps

    def draw(augmentation):
        generator = torch.Generator().manual_seed(3)
        targets = hard_logits(labels, 3)
        return next(iter(shuffled_batches(images, targets, 60, augmentation, generator))).images

    plain, flipped = draw(None), draw(Augmentation(("flip",)))
    changed = [not torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    assert 10 < sum(changed) < 50
    for a, b, turned in zip(plain, flipped, changed, strict=True):
        assert torch.equal(b, a.flip(2) if turned else a)


def test_predict_does_not_depend_on_how_it_is_cut(network, heaps):
    images, _ = heaps
    torch.testing.assert_close(predict(network, images, 7), predict(network, images))
    assert not predict(network, images).requires_grad


def test_accuracy_is_a_fraction_taken_in_evaluation_mode():
    class Parrot(nn.Module):
        def forward(self, images):
            assert not self.training
            return images.flatten(1)

    images = torch.eye(4).view(4, 1, 2, 2)
    assert accuracy(Parrot(), images, torch.tensor([0, 1, 2, 0])) == 0.75


def losses_and_weights(network, batch, **options):
    twin = copy.deepcopy(network)
    how = TrainSettings(1, 0.1, momentum=0.0, weight_decay=0.0, **options)
    (epoch,) = train(twin, lambda epoch: [batch], how)
    return epoch.loss, parameter_vector(twin)


def test_parts_accumulate_to_the_gradient_of_the_whole_batch(network, heaps):
    images, labels = heaps
    batch = Batch(images[:11], hard_logits(labels[:11], 3))
    loss, whole = losses_and_weights(network, batch)
    for parts in (2, 3):
        other, cut = losses_and_weights(network, Batch(batch.images, batch.labels, parts))
        assert other == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(cut, whole)


def test_parts_are_seen_by_batch_norm_one_by_one(heaps):
    images, labels = heaps
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3))
    seen = []
    network[0].register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    batch = Batch(images[:11], hard_logits(labels[:11], 3), parts=2)
    list(train(network, lambda epoch: [batch], TrainSettings(1, 0.1)))
    assert seen == [5, 6]


@given(count=st.integers(1, 60), parts=st.integers(1, 9))
def test_split_parts_covers_all_places_evenly_and_leaves_none_alone(count, parts):
    pieces = split_parts(count, parts)
    sizes = [piece.stop - piece.start for piece in pieces]
    assert [place for piece in pieces for place in range(piece.start, piece.stop)] == list(
        range(count)
    )
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2 or count == 1
    assert len(pieces) == parts or len(pieces) == max(1, count // 2) < parts


def test_eta_stretches_the_cosine():
    plain, stretched = (TrainSettings(10, 0.5, eta=eta) for eta in (1, 2))
    for epoch in range(10):
        expected = 0.25 * (1 + math.cos(math.pi * epoch / 20))
        assert stretched.lr_at(epoch) == pytest.approx(expected)
    assert plain.lr_at(5) == pytest.approx(0.25)
    # Half of the peak is left where a plain cosine ends at zero.
    assert stretched.lr_at(10) == pytest.approx(0.25)
    assert TrainSettings(10, 0.5, schedule="constant", eta=2).lr_at(9) == 0.5


def test_train_ends_with_the_moving_average_of_its_weights(heaps):
    images, labels = heaps
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3))
    batches = [Batch(images[i : i + 20], hard_logits(labels[i : i + 20], 3)) for i in (0, 20, 40)]
    # The weights after every step, by trainings that stop there.
    states = [network.state_dict()]
    for steps in (1, 2, 3):
        twin = copy.deepcopy(network)
        list(train(twin, lambda epoch, n=steps: batches[:n], TrainSettings(1, 0.1)))
        states.append(twin.state_dict())
    expected = {name: value.clone() for name, value in states[0].items()}
    for step, state in enumerate(states[1:], start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in state.items():
            new = decay * expected[name] + (1 - decay) * value
            expected[name] = new if value.is_floating_point() else value
    list(train(network, lambda epoch: batches, TrainSettings(1, 0.1, average=0.3)))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert int(network[0].num_batches_tracked) == 3


def test_train_yields_before_the_average_takes_over(network, heaps):
    epochs = train(network, epochs_of(heaps), TrainSettings(1, 0.1, average=0.99))
    next(epochs)
    trained = parameter_vector(network).clone()
    assert list(epochs) == []
    assert not torch.equal(parameter_vector(network), trained)


def test_adam_keeps_its_decay_in_the_gradient():
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    # No gradient but that of the decay, which Adam scales to its learning rate.
    batch = Batch(torch.zeros(2, 2), network.bias.detach().expand(2, 2))
    how = TrainSettings(1, 0.01, optimizer="adam", weight_decay=0.1, schedule="constant")
    list(train(network, lambda epoch: [batch], how))
    torch.testing.assert_close(network.weight, before - 0.01 * before.sign(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("key", "value"), [("eta", 0.5), ("average", 1.0), ("average", -0.1)])
def test_settings_refuse_what_cannot_be(key, value):
    with pytest.raises(ValueError, match=f"{key} is {value}"):
        TrainSettings(1, 0.1, **{key: value})
