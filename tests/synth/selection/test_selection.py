"""Selection against slow references, and the mosaics' shapes and choices."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from synth.committee.features import committee_features, head_inputs
from synth.committee.vote import Committee
from synth.crops import crop_resized
from synth.formation import encode_images
from synth.selection import (
    MosaicDraw,
    MosaicSettings,
    Pixels,
    choose_per_class,
    draw_mosaics,
    herding,
    k_center,
    make_mosaics,
    realism_loss,
)
from tests.synth.cases import build


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_herding(features, count):
    chosen = []
    for _ in range(count):
        gaps = {
            place: float((features[[*chosen, place]].mean(dim=0) - features.mean(dim=0)).norm())
            for place in range(len(features))
            if place not in chosen
        }
        chosen.append(min(gaps, key=gaps.get))
    return chosen


def slow_k_center(features, count):
    away = (features - features.mean(dim=0)).norm(dim=1)
    chosen = [int(away.argmin())]
    while len(chosen) < count:
        gaps = {
            place: min(float((features[place] - features[other]).norm()) for other in chosen)
            for place in range(len(features))
            if place not in chosen
        }
        chosen.append(max(gaps, key=gaps.get))
    return chosen


@pytest.mark.parametrize(("rule", "slow"), [(herding, slow_herding), (k_center, slow_k_center)])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_rule_equals_its_slow_form(rule, slow, count):
    for seed in range(5):
        features = torch.randn(12, 3, generator=seeded(seed), dtype=torch.float64)
        assert rule(features, count).tolist() == slow(features, count)


@pytest.mark.parametrize("rule", [herding, k_center])
def test_rule_never_repeats_even_where_features_are_equal(rule):
    assert sorted(rule(torch.zeros(6, 2), 6).tolist()) == list(range(6))


def test_herding_keeps_the_mean_and_k_center_covers():
    features = torch.cat([torch.randn(50, 2, generator=seeded(0)), torch.tensor([[40.0, 0.0]])])

    def radius(chosen):
        return float(torch.cdist(features, features[chosen]).min(dim=1).values.max())

    centre = features.mean(dim=0)
    by_mean, by_cover = herding(features, 8), k_center(features, 8)
    assert float((features[by_mean].mean(dim=0) - centre).norm()) < 0.3
    assert 50 in by_cover.tolist()
    assert radius(by_cover) < radius(by_mean)


@pytest.mark.parametrize("rule", [herding, k_center])
def test_fewer_are_the_first_of_more(rule):
    features = torch.randn(30, 4, generator=seeded(1))
    assert torch.equal(rule(features, 7), rule(features, 20)[:7])


def test_pixels_are_features():
    images = torch.rand(5, 2, 3, 4, generator=seeded(0))
    found = Pixels(images)[torch.tensor([4, 1])]
    assert torch.equal(found, images[[4, 1]].reshape(2, 24))


def test_choice_goes_class_by_class(generator):
    features = torch.randn(40, 3, generator=generator)
    labels = torch.arange(40) % 4
    chosen = choose_per_class(features, labels, 4, 3, herding)
    assert labels[chosen].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    members = torch.nonzero(labels == 2).flatten()
    assert torch.equal(chosen[6:9], members[herding(features[members], 3)])


def test_fewer_candidates_than_ipc_are_refused():
    labels = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match="class 1 has 1 candidates, but ipc is 2; lower ipc"):
        choose_per_class(torch.zeros(3, 2), labels, 2, 2, k_center)


def test_features_are_what_the_head_sees(generator):
    network = build("ConvNet", size=(8, 8), width=4, depth=2, norm="batch")
    images = torch.randn(7, 1, 8, 8, generator=generator)
    found = head_inputs(network.train(), images, batch_size=3)
    torch.testing.assert_close(network.head(found), network.eval()(images))
    assert not found.requires_grad
    assert not any(module._forward_pre_hooks for module in network.modules())
    with pytest.raises(ValueError, match="no linear layer"):
        head_inputs(nn.Flatten(), images)


def test_features_of_a_committee_count_by_weight_and_not_by_width(generator):
    members = tuple(build("ConvNet", size=(8, 8), width=w, depth=1) for w in (2, 16))
    images = torch.randn(9, 1, 8, 8, generator=generator)
    found = committee_features(Committee(members, torch.tensor([0.8, 0.2])), images)
    narrow = head_inputs(members[0], images).shape[1]
    for part, weight in ((found[:, :narrow], 0.8), (found[:, narrow:], 0.2)):
        torch.testing.assert_close(part.mean(dim=0), torch.zeros(part.shape[1]), atol=1e-5, rtol=0)
        assert float(part.square().sum(dim=1).mean()) == pytest.approx(weight, rel=1e-4)


def brightness(crops):
    """Bright crops are realistic."""
    return -crops.mean(dim=(1, 2, 3))


@given(
    side=st.integers(4, 12),
    channels=st.sampled_from([1, 3]),
    ipc=st.integers(1, 3),
    factor=st.integers(1, 2),
    crops=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_mosaics_have_the_shape_of_the_images_and_repeat(side, channels, ipc, factor, crops, seed):
    images = torch.rand(30, channels, side, side + 1, generator=seeded(seed))
    settings = MosaicSettings(candidates=13, crops=crops, factor=factor, smallest=0.3)
    found = []
    for _ in range(2):
        draw = draw_mosaics(torch.arange(5, 30), ipc, settings, (side, side + 1), seeded(seed))
        found.append(make_mosaics(images, draw, ipc, factor, brightness))
    assert draw.boxes.shape == (13, crops, 4)
    assert len(set(draw.candidates.tolist())) == 13
    assert int(draw.candidates.min()) >= 5
    assert found[0].shape == (ipc, channels, side, side + 1)
    assert torch.equal(*found)
    assert 0 <= float(found[0].min()) <= float(found[0].max()) <= 1


@pytest.mark.parametrize(("ipc", "factor"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_mosaics_equal_a_slow_search_for_the_best_crops(ipc, factor):
    images = torch.rand(70, 1, 8, 8, generator=seeded(1))
    settings = MosaicSettings(candidates=60, crops=4, factor=factor, smallest=0.2)
    draw = draw_mosaics(torch.arange(70), ipc, settings, (8, 8), seeded(2))
    best = []
    for image, boxes in zip(draw.candidates.tolist(), draw.boxes.tolist(), strict=True):
        cut = [crop_resized(images[image : image + 1], tuple(box), (8, 8)) for box in boxes]
        best.append(max(cut, key=lambda crop: float(crop.mean())))
    best.sort(key=lambda crop: -float(crop.mean()))
    for number, mosaic in enumerate(make_mosaics(images, draw, ipc, factor, brightness)):
        tiles = torch.cat(best[number : ipc * factor**2 : ipc])
        torch.testing.assert_close(mosaic, encode_images(tiles, factor)[0])


def test_all_candidates_are_looked_at_where_there_are_fewer():
    settings = MosaicSettings(candidates=300, crops=1, factor=2)
    draw = draw_mosaics(torch.tensor([3, 9, 4, 7]), 1, settings, (8, 8), seeded(0))
    assert sorted(draw.candidates.tolist()) == [3, 4, 7, 9]


@pytest.mark.parametrize(("candidates", "members"), [(7, 100), (300, 7)])
def test_fewer_candidates_than_tiles_are_refused(candidates, members):
    settings = MosaicSettings(candidates=candidates, factor=2)
    with pytest.raises(ValueError, match="7 candidates, but 2 mosaics of factor 2 need 8"):
        draw_mosaics(torch.arange(members), 2, settings, (8, 8), seeded(0))


def test_tiles_that_are_too_small_are_refused():
    images = torch.rand(9, 1, 4, 4)
    draw = MosaicDraw(torch.arange(9), torch.tensor([[[0, 0, 4, 4]]] * 9))
    with pytest.raises(ValueError, match="lower the factor"):
        make_mosaics(images, draw, 1, 3, brightness)


def test_realism_is_the_cross_entropy_with_the_class(generator):
    logits = torch.randn(5, 10, generator=generator)
    found = realism_loss(logits, 3)
    wanted = [float(cross_entropy(row.unsqueeze(0), torch.tensor([3]))) for row in logits]
    assert found.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("choose", ["herding", "k_center"])
def test_memory_does_not_grow_with_the_number_that_is_chosen(choose):
    """Blocks of this size come from the heap, which grew by one in many steps."""
    script = (
        "import resource, torch\n"
        "torch.set_num_threads(1)\n"
        f"from synth.selection import {choose} as choose\n"
        "features = torch.randn(5400, 784)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "choose(features, 5)\n"
        "before = peak()\n"
        "choose(features, 300)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100_000, "kB; the features take 17,000"
