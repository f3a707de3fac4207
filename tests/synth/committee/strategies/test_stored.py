"""Label strategies on a committee and on stored votes."""

from dataclasses import replace

import pytest
import torch

from synth.augment import Augmentation, draw_mix
from synth.committee.relabel import StoredMixes, labelled_online
from synth.committee.strategies import Zones, crowd_posterior, draw_cutmix_boxes
from synth.committee.strategies.stored import (
    aggregated_vote,
    apply_zones,
    refined,
    self_mixed,
    soft_hard_soft,
    with_classes,
)
from synth.committee.vote import Committee
from synth.losses import hard_logits
from synth.training.batches import Batch, shuffled_batches
from tests.distill.sets.cases import make_votes

HARD = torch.tensor([0, 0, 1, 1, 2, 2])


class Fixed(torch.nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


MEMBERS = torch.tensor(
    [[[4.0, 0, 0], [0, 1, 0]], [[0, 2.0, 0], [0, 0, 5.0]], [[9.0, 0, 0], [0, 3, 0]]]
)
COMMITTEE = Committee(tuple(Fixed(logits) for logits in MEMBERS), torch.tensor([0.5, 0.25, 0.25]))


def test_members_are_aggregated_by_each_rule():
    seen = torch.zeros(2, 1, 2, 2)
    mean = aggregated_vote(COMMITTEE, seen, ["logits"], False)
    torch.testing.assert_close(mean, torch.einsum("m,mnk->nk", COMMITTEE.weights, MEMBERS))
    found = aggregated_vote(COMMITTEE, seen, ["probabilities"], False).softmax(dim=1)
    expected = torch.einsum("m,mnk->nk", COMMITTEE.weights, MEMBERS.softmax(dim=2))
    torch.testing.assert_close(found, expected)
    crowd = aggregated_vote(COMMITTEE, seen, ["standard", "softmax"], False).softmax(dim=1)
    votes = MEMBERS.argmax(dim=2)
    both = [crowd_posterior(name, votes, 3) for name in ("standard", "softmax")]
    torch.testing.assert_close(crowd, sum(both) / 2, atol=1e-6, rtol=0)


def test_a_method_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "crowdkit", None)
    with pytest.raises(ImportError, match=r"install limbeck\[crowd\]"):
        aggregated_vote(COMMITTEE, torch.zeros(2, 1, 2, 2), ["glad"], False)


def test_zones_change_background_and_replace_what_shows_nothing():
    votes = make_votes()
    classes = HARD[votes.ids]
    logits = torch.zeros(2, 6, 3)
    logits.scatter_(2, classes[..., None], 40.0)
    lost = votes.ids[0, 0]
    logits[0, 0] = torch.tensor([40.0, 40.0, 40.0]).scatter(0, classes[0, 0], -80.0)
    logits[0, 1] = 0.0
    found = apply_zones(replace(votes, logits=logits.half()), HARD, Zones(0.05, 0.4, 1.0, 0.1))
    probabilities = torch.softmax(found.logits.float() / 4.0, dim=2)
    assert float(probabilities[0, 1, classes[0, 1]]) == pytest.approx(0.9, abs=5e-3)
    other = int((votes.ids[1] == lost).nonzero())
    assert torch.equal(found.views[0, 0], votes.views[1, other])
    assert torch.equal(found.logits[0, 0], found.logits[1, other])
    assert torch.equal(found.views[0, 2:], votes.views[0, 2:])


def test_refined_votes_mix_in_the_hard_label():
    votes = make_votes()
    found = torch.softmax(refined(votes, HARD, 0.3).logits.float() / 4.0, dim=2)
    soft = torch.softmax(votes.logits.float() / 4.0, dim=2)
    one_hot = torch.nn.functional.one_hot(HARD[votes.ids], 3)
    torch.testing.assert_close(found, 0.3 * one_hot + 0.7 * soft, atol=2e-3, rtol=0)


def test_hard_stages_have_smoothed_labels_and_the_same_views():
    votes, images = make_votes(), torch.randn(6, 1, 4, 5)
    batches = soft_hard_soft(votes, images, HARD, 4, 0.5, 0.8)
    for epoch in range(4):
        for own, plain in zip(batches(epoch), votes.batches(images, epoch), strict=True):
            assert torch.equal(own.images, plain.images)
            same = torch.equal(own.labels, plain.labels)
            assert same == (epoch in (0, 3))
            if not same:
                top = torch.softmax(own.labels / 4.0, dim=1).amax(dim=1)
                torch.testing.assert_close(top, torch.full((3,), 0.2 + 0.8 / 3), atol=2e-3, rtol=0)


def test_self_mix_pastes_the_next_view_of_the_same_image_and_mixes_labels_by_area():
    votes = make_votes()
    votes = replace(votes, views=torch.zeros_like(votes.views))
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 5).contiguous()
    plain = [votes.batches(images, epoch) for epoch in (0, 1)]
    soft = torch.softmax(votes.logits.float() / 4.0, dim=2)
    own = torch.cat([batch.images for batch in plain[0]])
    generator, again = (torch.Generator().manual_seed(2) for _ in range(2))
    mixed = list(self_mixed(votes, images, generator)(0))
    # Both views show the same constant image, so only the label tells how much is whose.
    assert torch.equal(torch.cat([batch.images for batch in mixed]), own)
    labels = torch.softmax(torch.cat([batch.labels for batch in mixed]) / 4.0, dim=1)
    boxes = torch.cat([draw_cutmix_boxes(len(batch.images), (4, 5), again) for batch in mixed])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 20
    for place in range(6):
        other = int((votes.ids[1] == votes.ids[0, place]).nonzero())
        expected = (1 - area[place]) * soft[0, place] + area[place] * soft[1, other]
        torch.testing.assert_close(labels[place], expected, atol=1e-5, rtol=1e-4)
    assert 0 < float(area.min()) + float(area.max()) < 2


def test_self_mix_refuses_views_that_are_mixed():
    votes = make_votes()
    mixes = StoredMixes("cutmix", votes.ids, torch.zeros(2, 2, 4))
    with pytest.raises(ValueError, match="mixed by cutmix already"):
        self_mixed(replace(votes, mixes=mixes), torch.zeros(6, 1, 4, 5), torch.Generator())


def planes():
    """Images [6, 3, 8, 10] that are 1 in the channel of their class: a view's mean is its label."""
    return torch.nn.functional.one_hot(HARD, 3).float()[:, :, None, None].expand(6, 3, 8, 10)


@pytest.mark.parametrize("kind", ["none", "cutmix", "mixup"])
@pytest.mark.parametrize("source", ["stored", "online"])
def test_labels_are_mixed_with_the_classes_that_a_view_shows(kind, source, generator):
    if source == "online":

        def batches():
            again = torch.Generator().manual_seed(4)
            label = lambda images: images[:, :, 0, 0].cos() * 3  # noqa: E731
            return labelled_online(planes(), label, 3, Augmentation(()), again, kind)

    else:
        votes = make_votes(values=0)
        if kind != "none":
            drawn = [[draw_mix(kind, 3, (8, 10), generator) for _ in range(2)] for _ in range(2)]
            votes = replace(votes, mixes=StoredMixes.stack(drawn))

        def batches():
            return votes.batches(planes(), 1)

    shares = []
    for plain, mixed in zip(batches(), with_classes(batches(), HARD, 0.3, 4.0), strict=True):
        assert torch.equal(mixed.images, plain.images)
        shown = plain.images.mean(dim=(2, 3))
        expected = 0.7 * torch.softmax(plain.labels / 4.0, dim=1) + 0.3 * shown
        torch.testing.assert_close(torch.softmax(mixed.labels / 4.0, dim=1), expected)
        shares.append(shown)
    assert (torch.cat(shares).amax(dim=1) < 0.999).any() == (kind != "none")


def test_learned_labels_are_mixed_with_the_class_of_their_image(generator):
    learned = torch.randn(6, 3, generator=generator)

    def batches():
        again = torch.Generator().manual_seed(4)
        return shuffled_batches(planes(), learned, 4, None, again)

    for plain, mixed in zip(batches(), with_classes(batches(), HARD, 0.5, 1.0), strict=True):
        shown = plain.images.mean(dim=(2, 3))
        expected = 0.5 * torch.softmax(plain.labels, dim=1) + 0.5 * shown
        torch.testing.assert_close(torch.softmax(mixed.labels, dim=1), expected)


def test_a_batch_that_hides_its_images_is_refused():
    batch = Batch(planes(), hard_logits(HARD, 3))
    with pytest.raises(ValueError, match="does not say of which images"):
        list(with_classes([batch], HARD, 0.5, 1.0))
