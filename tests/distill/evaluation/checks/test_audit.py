"""`distill audit`: neighbours, rates of attacks, and what is said of them."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from distill.data import build_real_data
from distill.data.splits import Split
from distill.evaluation.checks.neighbours import find_neighbours, nearer_to_training
from distill.evaluation.checks.rates import interval_of, judge_attack
from distill.recipes.build import build_data
from distill.recipes.loading import check_recipe
from distill.sets.set_file import SetFile, read_set, write_set
from tests.distill.cases import CountingStop, listen_with


def normal(count, mean, seed):
    return mean + torch.randn(count, generator=torch.Generator().manual_seed(seed))


def test_the_area_is_that_of_the_curve_and_covers_the_truth():
    covered = 0
    for seed in range(40):
        members, others = normal(300, 0.5, 2 * seed), normal(200, 0.0, 2 * seed + 1)
        attack = judge_attack(members, others)
        truth = 0.6381631950841185  # Phi(0.5 / sqrt(2))
        covered += attack.auc_interval[0] <= truth <= attack.auc_interval[1]
    labels = np.r_[np.ones(300), np.zeros(200)]
    assert attack.auc == pytest.approx(roc_auc_score(labels, torch.cat([members, others])))
    assert covered >= 34


def test_low_rates_are_counted_strictly_and_with_exact_intervals():
    others = torch.arange(1000).float()
    members = torch.tensor([999.5] * 30 + [995.5] * 20 + [1.5] * 450)
    low, high = judge_attack(members, others).rates
    # One of a thousand: the score 999 may be accused, 998 not.
    assert (low.false_positives, low.true_rate) == (1, 0.06)
    assert (high.false_positives, high.true_rate) == (10, 0.1)
    exact = binomtest(50, 500).proportion_ci(method="exact")
    assert high.true_interval == pytest.approx((exact.low, exact.high))
    assert low.above_chance
    assert judge_attack(members, others).evidence == ["rate at 0.1%", "rate at 1.0%"]


def test_too_few_test_images_say_nothing_at_a_low_rate():
    low, high = judge_attack(normal(500, 0, 0), normal(360, 0, 1)).rates
    assert low.true_rate is None
    assert high.true_rate is not None
    assert not low.above_chance
    # Eight scores of one image are not eight images.
    repeated = judge_attack(normal(500, 0, 0), normal(2880, 0, 1), repeats=(1, 8))
    assert repeated.rates[0].true_rate is None


def test_chance_is_hardly_ever_called_more():
    found = [
        judge_attack(normal(400, 0, 2 * seed), normal(400, 0, 2 * seed + 1)).above_chance
        for seed in range(60)
    ]
    assert sum(found) <= 6


def test_repeats_widen_the_intervals():
    members, others = normal(800, 1, 0), normal(800, 0, 1)
    once, eight = judge_attack(members, others), judge_attack(members, others, repeats=(8, 8))
    assert once.auc == eight.auc
    widths = [high - low for low, high in (once.auc_interval, eight.auc_interval)]
    assert widths[1] > 2.5 * widths[0]


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (3, 50)])
def test_intervals_are_those_of_clopper_and_pearson(count, total):
    exact = binomtest(count, total).proportion_ci(method="exact")
    assert interval_of(count, total) == pytest.approx((exact.low, exact.high))


@pytest.fixture
def real():
    generator = torch.Generator().manual_seed(0)

    def split(count):
        return Split(torch.rand(count, 1, 6, 6, generator=generator), torch.arange(count) % 2)

    return build_real_data(split(60), split(10), split(40), ("a", "b"), "arrays")


def test_planted_copies_are_the_nearest_images(real, monkeypatch):
    monkeypatch.setattr("distill.evaluation.checks.neighbours._BATCH", 13)
    train = real.train.images
    brighter = train[[41]] * 0.8 + 0.1
    images = torch.cat([train[[7]], (train[[30]] + 0.001).clamp(0, 1), brighter, 1 - train[[5]]])
    found = find_neighbours(images, train)
    assert found.indices[:3, 0].tolist() == [7, 30, 41]
    assert found.exact.tolist()[0] is True
    assert found.exact.tolist()[2:] == [False, False]
    assert found.near.tolist() == [True, True, True, False]
    expected = (images[3] - train).square().mean(dim=(1, 2, 3)).sqrt().sort()
    assert torch.equal(found.indices[3], expected.indices[:3])
    assert torch.allclose(found.distances[3], expected.values[:3], atol=1e-5)


def test_a_set_of_training_images_is_nearer_to_them(real):
    generator = torch.Generator().manual_seed(0)
    copies = nearer_to_training(real.train.images, real, generator)
    strangers = nearer_to_training(real.validation.images, real, generator)
    assert copies.interval[0] > 0.6
    assert strangers.interval[0] < 0.5 < strangers.interval[1]


QUICK = ("--references", "3", "--students", "1", "--epochs", "1", "--quiet", "--workers", "1")


def test_a_run_is_audited_in_numbers_and_on_a_page(run_copy, command, tmp_path):
    page = tmp_path / "audit.html"
    outcome = command("audit", run_copy, "--json", "--html", page, *QUICK)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["images"] == 10
    assert found["neighbours"]["exact"] == 0
    membership = found["membership"]
    assert (membership["labels"], membership["references"]) == ("learned", 3)
    assert 0 < membership["members"] <= 100
    assert {"loss", "lira", "control", "real"} <= membership.keys()
    # 360 test images: one of a thousand is none.
    assert membership["lira"]["rates"][0]["true_rate"] is None
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 10 * 4
    assert "http" not in text.partition("<main")[2]


def test_a_set_of_real_images_is_told(run_copy, command):
    path = run_copy / "set.h5"
    content = read_set(path)
    data = build_data(check_recipe(content.manifest["recipe"], "recipe").data)
    images = content.preprocess(data.train.images[: len(content.images)])
    write_set(path, SetFile(images, content.hard, content.manifest))
    outcome = command("audit", path, "--references", "0", "--quiet")
    assert outcome.code == 0, outcome.err
    assert "exact copies of training images: 10 of 10 (100.0%)" in outcome.out
    assert "likelihood" not in outcome.out


def test_an_interruption_is_one_line(finished, refused, monkeypatch):
    stop = listen_with(CountingStop(2))
    monkeypatch.setattr("distill.evaluation.checks.audit.listen", stop)
    assert "begin anew" in refused(130, "audit", finished, *QUICK)


def test_what_does_not_fit_is_one_line(finished, refused, tmp_path):
    assert "3 or more are needed" in refused(2, "audit", finished, "--references", "2")
    line = refused(1, "audit", finished, "--labels", "dense", *QUICK)
    assert "the set has no labels dense; name one of hard, learned, votes" in line
    (tmp_path / "a.html").write_text("a letter", encoding="utf-8")
    assert "no HTML page" in refused(1, "audit", finished, "--html", tmp_path / "a.html")
