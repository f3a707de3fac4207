"""How much each member weighs."""

import math

import pytest
import torch

from synth.committee.weights import RULES, VoteWeighting, similarity_weights, vote_weights


def test_vote_weights_by_prior_are_a_softmax_of_percents():
    # softmax([80, 70] / 10): e / (e + 1) of the vote for ten points more.
    found = vote_weights("prior", [0.8, 0.7], 10)
    assert found.tolist() == pytest.approx([0.7310586, 0.2689414])
    torch.testing.assert_close(vote_weights("prior", [0.5, 0.5, 0.5], 1), torch.full((3,), 1 / 3))
    assert vote_weights("prior", [0.9, 0.1], 1).tolist() == pytest.approx([1.0, 0.0])


def test_vote_weights_by_prior_grow_with_the_prior_and_sum_to_one():
    found = vote_weights("measured", [0.61, 0.72, 0.7, 0.85], 10)
    assert found.dtype == torch.float32
    assert float(found.sum()) == pytest.approx(1)
    assert found.argsort().tolist() == [0, 2, 1, 3]


def test_vote_weights_are_those_of_cv_dd():
    # Its priors on CIFAR-100 at tau 10: ResNet-18, ResNet-50, ShuffleNetV2, MobileNetV2, DenseNet.
    found = vote_weights("prior", [0.64, 0.606, 0.516, 0.594, 0.564], 10)
    assert found.tolist() == pytest.approx([0.323, 0.230, 0.093, 0.204, 0.151], abs=1e-3)
    pair = vote_weights("prior", [0.64, 0.516], 5)
    assert pair.tolist() == pytest.approx([0.923, 0.077], abs=1e-3)


def test_vote_weights_can_be_equal():
    assert vote_weights("equal", [0.1, 0.9, 0.5, 0.2], 10).tolist() == [0.25] * 4


def test_random_vote_weights_are_drawn_and_sum_to_one():
    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return vote_weights("random", [0.5] * 3, 10, generator=generator)

    assert float(drawn(0).sum()) == pytest.approx(1)
    assert bool((drawn(0) > 0).all())
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_similarity_weights_by_hand():
    assert similarity_weights([0.2, 0.4], 1).tolist() == pytest.approx([1 / 3, 2 / 3])
    assert similarity_weights([0.2, 0.4], 2).tolist() == pytest.approx([0.2, 0.8])
    assert similarity_weights([0.3, -0.5], 1).tolist() == [1, 0]


def test_similarity_power_goes_from_equal_to_the_nearest():
    similarities = [0.31, 0.42, 0.35]
    assert similarity_weights(similarities, 0).tolist() == pytest.approx([1 / 3] * 3)
    assert similarity_weights(similarities, math.inf).tolist() == [0, 1, 0]
    nearly = similarity_weights(similarities, 2000)
    assert nearly.tolist() == pytest.approx([0, 1, 0])


def test_similarities_of_nothing_weigh_equally():
    assert similarity_weights([-0.1, 0.0], 3).tolist() == [0.5, 0.5]


def test_only_the_drawn_members_are_weighed():
    weighting = VoteWeighting("prior", (0.8, 0.1, 0.7))
    torch.testing.assert_close(
        weighting.weights(10, members=[0, 2]), vote_weights("prior", [0.8, 0.7], 10)
    )
    torch.testing.assert_close(weighting.weights(10), vote_weights("prior", [0.8, 0.1, 0.7], 10))
    assert weighting.weights(10, members=[2, 0]).argmax() == 1


@pytest.mark.parametrize("rule", RULES)
def test_vote_weights_refuse_no_members(rule):
    with pytest.raises(ValueError, match="got no members; a committee needs at least one"):
        vote_weights(rule, [], 10)


def test_vote_weights_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="vote is 'best'; choose one of prior, measured"):
        vote_weights("best", [0.5], 10)
    with pytest.raises(ValueError, match="vote random draws its weights; give it a generator"):
        vote_weights("random", [0.5], 10)
