"""Soft labels for views: voted once and stored, or asked for online."""

import pytest
import torch

from synth.augment import FAMILIES, Augmentation, View
from synth.committee.relabel import StoredMixes, StoredVotes, labelled_online, relabel_epoch

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


def store(images, augmentation, epochs=2, batch_size=4, mix="none", parts=1):
    """Stored votes of some epochs, and what the labeller saw."""
    labeller, generator = Recorder(), torch.Generator().manual_seed(3)
    found = [
        relabel_epoch(images, labeller, batch_size, augmentation, generator, mix, parts)
        for _ in range(epochs)
    ]
    votes = StoredVotes(
        torch.stack([epoch.ids for epoch in found]),
        torch.stack([epoch.views for epoch in found]),
        torch.stack([epoch.logits for epoch in found]),
        augmentation.families,
        batch_size,
        1.0,
        False,
        StoredMixes.stack([epoch.mixes for epoch in found]),
        parts,
    )
    return votes, labeller.seen


def test_relabel_epoch_gives_every_image_a_view_and_a_label(images, generator):
    epoch = relabel_epoch(images, Recorder(), 4, EVERY, generator)
    ids, views, logits = epoch.ids, epoch.views, epoch.logits
    assert epoch.mixes == []
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


def test_one_family_may_be_drawn_for_each_batch_that_is_labelled_online(images, generator):
    seen = []

    class Drawn(Augmentation):
        def sample(self, count, size, generator):
            view = super().sample(count, size, generator)
            seen.append((count, view))
            return view

    one = Drawn(("crop", "flip", "rotate"), one_per_batch=True)
    batches = [
        batch for _ in range(8) for batch in labelled_online(images, Recorder(), 4, one, generator)
    ]
    assert [count for count, _ in seen] == [4, 5] * 8
    assert {view.families for _, view in seen} == {("crop",), ("flip",), ("rotate",)}
    for (_, view), batch in zip(seen, batches, strict=True):
        assert torch.equal(batch.images, view.apply(images[batch.ids]))
        assert torch.equal(batch.labels, batch.images.flatten(1)[:, 10:14])


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
@pytest.mark.parametrize("parts", [1, 2])
def test_stored_votes_replay_exactly_the_mixes_that_were_labelled(images, mix, parts):
    votes, seen = store(images, EVERY, mix=mix, parts=parts)
    assert votes.mixes.parameters.dtype == torch.float16
    replayed = [batch for epoch in (0, 1) for batch in votes.batches(images, epoch)]
    assert [len(batch.images) for batch in replayed] == [4, 5, 4, 5]
    assert torch.equal(torch.cat([batch.images for batch in replayed]), torch.cat(seen))
    for batch in replayed:
        assert batch.parts == parts
        assert torch.equal(batch.labels, batch.images.flatten(1)[:, 10:14].half().float())
    plain, _ = store(images, EVERY)
    assert torch.equal(plain.ids[0], votes.ids[0])
    assert not torch.equal(next(plain.batches(images, 0)).images, replayed[0].images)


def test_parts_are_labelled_one_by_one(images):
    votes, seen = store(images, EVERY, epochs=1, batch_size=9, parts=2)
    assert [len(part) for part in seen] == [4, 5]
    (batch,) = votes.batches(images, 0)
    assert torch.equal(batch.images, torch.cat(seen))


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixup"])
def test_labelled_online_mixes_and_cuts_as_stored(images, mix):
    generator = torch.Generator().manual_seed(3)
    online = list(labelled_online(images, Recorder(), 4, EVERY, generator, mix, 2))
    votes, _ = store(images, EVERY, epochs=1, mix=mix, parts=2)
    for batch, stored in zip(online, votes.batches(images, 0), strict=True):
        assert torch.equal(batch.images, stored.images)
        assert torch.equal(batch.labels, batch.images.flatten(1)[:, 10:14])
        assert batch.parts == stored.parts == 2
