"""Soft labels for views: voted once and stored, or asked for online."""

import pytest
import torch

from synth.augment import FAMILIES, Augmentation, View
from synth.relabel import StoredVotes, labelled_online, relabel_epoch

EVERY = Augmentation(tuple(FAMILIES))


@pytest.fixture
def images(generator):
    return torch.randn(9, 1, 6, 6, generator=generator)


class Recorder:
    """A labeller that remembers what it saw; its logits are four of the pixels."""

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(images)
        return images.flatten(1)[:, 10:14]


def store(images, augmentation, epochs=2, batch_size=4):
    """Stored votes of some epochs, and what the labeller saw."""
    labeller, generator = Recorder(), torch.Generator().manual_seed(3)
    parts = [
        relabel_epoch(images, labeller, batch_size, augmentation, generator) for _ in range(epochs)
    ]
    ids, views, logits = (torch.stack(part) for part in zip(*parts, strict=True))
    votes = StoredVotes(ids, views, logits, augmentation.families, batch_size, 1.0, False)
    return votes, labeller.seen


def test_relabel_epoch_gives_every_image_a_view_and_a_label(images, generator):
    ids, views, logits = relabel_epoch(images, Recorder(), 4, EVERY, generator)
    assert sorted(ids.tolist()) == list(range(9))
    assert ids.tolist() != sorted(ids.tolist())
    assert views.shape == (9, sum(family.width for family in FAMILIES.values()))
    assert logits.shape == (9, 4)
    assert (ids.dtype, views.dtype, logits.dtype) == (torch.int64, torch.float16, torch.float16)


@pytest.mark.parametrize("augmentation", [EVERY, Augmentation(())], ids=["every", "none"])
def test_stored_votes_replay_exactly_the_images_that_were_labelled(images, augmentation):
    votes, seen = store(images, augmentation)
    replayed = [batch for epoch in (0, 1) for batch in votes.batches(images, epoch)]
    # Nine images in batches of four: the last one joins the second batch.
    assert [len(batch.images) for batch in replayed] == [4, 5, 4, 5]
    for batch, labelled in zip(replayed, seen, strict=True):
        assert torch.equal(batch.images, labelled)
        assert torch.equal(batch.labels, labelled.flatten(1)[:, 10:14].half().float())
        assert batch.labels.dtype == torch.float32


def test_stored_votes_read_their_epochs_in_turn(images):
    votes, _ = store(images, EVERY)

    def epoch(number):
        return torch.cat([batch.images for batch in votes.batches(images, number)])

    assert not torch.equal(epoch(0), epoch(1))
    assert torch.equal(epoch(0), epoch(2))
    assert torch.equal(epoch(1), epoch(5))


def test_stored_votes_take_views_from_the_tensor_alone(images):
    votes, _ = store(images, EVERY, epochs=1, batch_size=9)
    (batch,) = votes.batches(images, 0)
    view = View.from_tensor(votes.families, votes.views[0].float())
    assert torch.equal(batch.images, view.apply(images[votes.ids[0]]))


def test_mean_probabilities_are_the_mean_over_the_views_of_each_image():
    logits = torch.tensor(
        [
            [[0.0, 2.0], [1.0, 1.0], [3.0, 0.0]],
            [[0.0, 0.0], [5.0, 0.0], [0.0, 1.0]],
        ]
    )
    ids = torch.tensor([[0, 1, 2], [2, 0, 1]])
    votes = StoredVotes(ids, torch.zeros(2, 3, 0).half(), logits.half(), (), 3, 4.0, False)
    soft = logits.softmax(dim=-1)
    expected = torch.stack(
        [
            (soft[0, 0] + soft[1, 1]) / 2,
            (soft[0, 1] + soft[1, 2]) / 2,
            (soft[0, 2] + soft[1, 0]) / 2,
        ]
    )
    torch.testing.assert_close(votes.mean_probabilities(), expected)


def test_labelled_online_labels_the_views_that_it_yields(images, generator):
    batches = list(labelled_online(images, Recorder(), 4, EVERY, generator))
    assert [len(batch.images) for batch in batches] == [4, 5]
    for batch in batches:
        assert torch.equal(batch.labels, batch.images.flatten(1)[:, 10:14])


def test_labelled_online_draws_the_views_that_relabel_epoch_draws(images):
    online = list(labelled_online(images, Recorder(), 4, EVERY, torch.Generator().manual_seed(3)))
    votes, _ = store(images, EVERY, epochs=1)
    for batch, stored in zip(online, votes.batches(images, 0), strict=True):
        assert torch.equal(batch.images, stored.images)
