"""Every label strategy against its formula worked by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from synth.committee.strategies import (
    CROWD_METHODS,
    Zones,
    aggregate_crowd,
    calibrate,
    crowd_posterior,
    draw_included,
    is_hard_epoch,
    margin_gains,
    max_min_weights,
    mean_logits,
    mean_probabilities,
    refined_labels,
    replace_dropped,
    self_mix,
    smoothed_logits,
    zone_of,
)
from synth.losses import cosine_loss

# Three workers, four tasks, three classes.
VOTES = torch.tensor([[0, 1, 2, 0], [0, 1, 1, 0], [1, 1, 2, 2]])


def test_means_by_hand():
    members = torch.tensor([[[0.0, math.log(3)]], [[math.log(9), 0.0]]])
    weights = torch.tensor([0.75, 0.25])
    expected = [[0.25 * math.log(9), 0.75 * math.log(3)]]
    torch.testing.assert_close(mean_logits(members, weights), torch.tensor(expected))
    mean = [[0.75 * 0.25 + 0.25 * 0.9, 0.75 * 0.75 + 0.25 * 0.1]]
    found = mean_probabilities(members, weights).softmax(dim=1)
    torch.testing.assert_close(found, torch.tensor(mean))


def test_crowd_counts_by_hand():
    standard = crowd_posterior("standard", VOTES, 3)
    torch.testing.assert_close(standard[0], torch.tensor([2 / 3, 1 / 3, 0.0]))
    weights = [math.exp(count) for count in (2, 1, 0)]
    softmax = torch.tensor([weight / sum(weights) for weight in weights])
    torch.testing.assert_close(crowd_posterior("softmax", VOTES, 3)[0], softmax)
    mean = aggregate_crowd(["standard", "softmax"], VOTES, 3)
    torch.testing.assert_close(mean[0], (standard[0] + softmax) / 2)


def test_dawid_skene_by_hand_and_with_liars():
    votes = torch.tensor([[0, 1], [0, 0]])
    # By counts task 0 is class 0 and task 1 is half and half, so p = (3/4, 1/4). The second worker
    # always says 0; the first says 1 of class 0 in 1/3 and of class 1 always. So task 1 weighs
    # 3/4 * 1/3 against 1/4 * 1: it stays half and half.
    found = crowd_posterior("dawid-skene", votes, 2)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [0.5, 0.5]]), atol=1e-5, rtol=0)
    truth = torch.arange(200) % 4
    liar = (truth + 1) % 4
    good = torch.where(torch.arange(200) % 5 == 0, liar, truth)
    crowd = torch.stack([truth, good, good.roll(4), liar, liar])
    counted = crowd_posterior("standard", crowd, 4)
    settled = crowd_posterior("dawid-skene", crowd, 4)
    assert settled.gather(1, truth[:, None]).mean() > counted.gather(1, truth[:, None]).mean()


@pytest.mark.parametrize("method", CROWD_METHODS)
def test_every_crowd_method_gives_probabilities(method):
    if method in ("glad", "mace"):
        pytest.importorskip("crowdkit")
    found = crowd_posterior(method, VOTES, 3)
    assert found.shape == (4, 3)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(4), atol=1e-4, rtol=0)
    assert found[1].argmax() == 1


def test_wawa_and_zero_based_skill_by_hand():
    # The majority says 0, 1, 2, 0: the workers agree with it 4, 3 and 2 times of 4.
    found = crowd_posterior("wawa", VOTES, 3)
    torch.testing.assert_close(found[0], torch.tensor([7 / 9, 2 / 9, 0.0]))
    torch.testing.assert_close(found[2], torch.tensor([0.0, 3 / 9, 6 / 9]))
    # The weighed result is the same majority, so the skills settle at the same agreement.
    settled = crowd_posterior("zero-based-skill", VOTES, 3)
    torch.testing.assert_close(settled, found, atol=1e-4, rtol=0)


def test_an_unknown_crowd_method_is_refused():
    with pytest.raises(ValueError, match="crowd method is 'median'"):
        crowd_posterior("median", VOTES, 3)


def test_ferkd_zones_by_hand():
    zones = Zones(low=0.1, middle=0.3, top=0.9, epsilon=0.2)
    confidence = torch.tensor([0.05, 0.2, 0.5, 0.95])
    rest = ((1 - confidence) / 2)[:, None].expand(-1, 2)
    labels = torch.cat((confidence[:, None], rest), dim=1)
    hard = torch.zeros(4, dtype=torch.int64)
    assert zone_of(labels, hard, zones).tolist() == [0, 1, 2, 0]
    found = calibrate(labels, hard, zones)
    torch.testing.assert_close(found[1], torch.tensor([0.8, 0.1, 0.1]))
    torch.testing.assert_close(found[[0, 2, 3]], labels[[0, 2, 3]])
    with pytest.raises(ValueError, match="low <= middle"):
        Zones(low=0.5, middle=0.3)


def test_dropped_labels_are_read_from_the_next_kept_one_of_their_image():
    ids = torch.tensor([[0, 1], [1, 0], [0, 1]])
    zone = torch.tensor([[0, 2], [0, 2], [2, 0]])
    # Flat places of image 0: 0, 3, 4, kept 3 and 4; of image 1: 1, 2, 5, kept 1.
    assert replace_dropped(ids, zone).tolist() == [[3, 1], [1, 3], [4, 1]]
    assert replace_dropped(ids, torch.zeros(3, 2)).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_selfmix_by_hand():
    first, second = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    mixed, kept = self_mix(first, second, torch.tensor([[0, 0, 2, 2], [1, 1, 1, 3]]))
    assert mixed.sum(dim=(1, 2, 3)).tolist() == [4, 0]
    assert mixed[0, 0, :2, :2].sum() == 4
    assert kept.tolist() == [0.75, 1.0]


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=7), st.data())
@settings(max_examples=40, deadline=None)
def test_max_min_weights_reach_the_linear_programme(gains, data):
    mistakes = data.draw(st.integers(0, len(gains) - 1))
    gain = torch.tensor(gains, dtype=torch.float64)
    weights = max_min_weights(gain, mistakes)
    assert float(weights.sum()) == pytest.approx(1)
    worst = float((weights * gain).sort().values[: len(gains) - mistakes].sum())
    # max t s.t. the sum of the n - m least p_i g_i is at least t: its dual form by thresholds.
    n, m = len(gains), mistakes
    cost = [0.0] * n + [float(m)] + [1.0] * n
    cost[:n] = [-g for g in gains]
    rows = [[gains[i] if j == i else 0.0 for j in range(n)] + [-1.0]
            + [-1.0 if j == i else 0.0 for j in range(n)] for i in range(n)]  # fmt: skip
    found = linprog(
        cost, A_ub=rows, b_ub=[0.0] * n, A_eq=[[1.0] * n + [0.0] * (n + 1)], b_eq=[1.0],
        bounds=[(0, None)] * (2 * n + 1),
    )  # fmt: skip
    assert worst == pytest.approx(-found.fun, abs=1e-6)


def test_the_budget_is_kept_and_chances_are_right(generator):
    weights = torch.tensor([0.5, 0.3, 0.2, 0.0])
    counts = torch.zeros(4)
    for _ in range(2000):
        chosen = draw_included(weights, 2, generator)
        assert len(chosen) == 2
        counts[chosen] += 1
    expected = torch.tensor([1.0, 0.6, 0.4, 0.0])
    torch.testing.assert_close(counts / 2000, expected, atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="mistakes"):
        max_min_weights(weights, 1)


def test_hald_puts_hard_epochs_in_the_middle():
    hard = [is_hard_epoch(epoch, 300, 0.5) for epoch in range(300)]
    assert hard.index(True) == 75
    assert sum(hard) == 150
    assert not any(hard[:75] + hard[225:])
    assert not any(is_hard_epoch(epoch, 9, 0.0) for epoch in range(9))


def test_smoothed_and_refined_labels_by_hand():
    hard = torch.tensor([1])
    smooth = smoothed_logits(hard, 4, 0.8).softmax(dim=1)
    torch.testing.assert_close(smooth, torch.tensor([[0.2, 0.4, 0.2, 0.2]]))
    logits = torch.tensor([[2 * math.log(3), 0.0]])
    found = refined_labels(logits, hard, 2.0, 0.1)
    torch.testing.assert_close(found, torch.tensor([[0.9 * 0.75, 0.1 + 0.9 * 0.25]]))


def test_the_cosine_loss_by_hand():
    student = torch.tensor([[3.0, 4.0]], requires_grad=True)
    labels = torch.tensor([[0.6, 0.4]]).log() * 2
    expected = 1 - (3 * 0.6 + 4 * 0.4) / (5 * math.sqrt(0.36 + 0.16))
    loss = cosine_loss(student, labels, 2.0)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-6)
    assert torch.autograd.grad(loss, student)[0].abs().sum() > 0


def test_max_min_weights_and_gains_by_hand():
    # Margins of 0.5, 0.75 and 0.9: gains 0.5, 0.25 and 0.1. With one mistake (k - m) / sum 1/g is
    # 1 / 6 for k = 2 and 2 / 16 for k = 3, so the last point gets nothing: p = (2, 4) / 6.
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.85, 0.1, 0.05], [0.94, 0.04, 0.02]])
    gains = margin_gains(probabilities.log())
    torch.testing.assert_close(gains, torch.tensor([0.5, 0.25, 0.1]))
    torch.testing.assert_close(max_min_weights(gains, 1), torch.tensor([1 / 3, 2 / 3, 0.0]))
    # Without mistakes 1 / 2 (k = 1) beats 2 / 6: all on the point of most gain.
    torch.testing.assert_close(max_min_weights(gains, 0), torch.tensor([1.0, 0.0, 0.0]))
    assert float(margin_gains(torch.tensor([[100.0, 0.0]]))) > 0


def test_a_budget_is_filled_though_some_points_are_certain(generator):
    # c = 3: the first point for certain, and of the budget of 2 that is left p_i / 0.4 * 2.
    weights = torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1, 0.0])
    counts = torch.zeros(6)
    for _ in range(1000):
        chosen = draw_included(weights, 3, generator)
        assert len(chosen) == 3
        counts[chosen] += 1
    expected = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5, 0.0])
    torch.testing.assert_close(counts / 1000, expected, atol=0.06, rtol=0)
    assert draw_included(weights, 6, generator).tolist() == [0, 1, 2, 3, 4]
