"""CutMix and Mixup: drawn and applied in two calls."""

import pytest
import torch

from synth.augment import Mix, draw_mix


@pytest.fixture
def images(generator):
    return torch.randn(6, 2, 8, 10, generator=generator)


def test_cutmix_takes_the_box_from_the_partner(images):
    partners = torch.tensor([1, 2, 3, 4, 5, 0])
    mixed = Mix("cutmix", partners, torch.tensor([2.0, 5.0, 0.0, 4.0])).apply(images)
    expected = images.clone()
    for place in range(6):
        expected[place, :, 2:5, 0:4] = images[partners[place], :, 2:5, 0:4]
    assert torch.equal(mixed, expected)


def test_mixup_blends_with_the_partner(images):
    partners = torch.tensor([1, 0, 3, 2, 5, 4])
    mixed = Mix("mixup", partners, torch.tensor([0.25])).apply(images)
    torch.testing.assert_close(mixed, 0.25 * images + 0.75 * images[partners])


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_mix_is_the_same_on_every_call_and_leaves_the_images_alone(kind, images, generator):
    before = images.clone()
    mix = draw_mix(kind, 6, (8, 10), generator)
    assert torch.equal(mix.apply(images), mix.apply(images))
    assert torch.equal(images, before)
    assert sorted(mix.partners.tolist()) == list(range(6))
    assert torch.equal(mix.parameters, mix.parameters.half().float())


def test_cutmix_boxes_lie_within_the_image_and_cover_what_their_share_says():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.stack([draw_mix("cutmix", 2, (8, 10), generator).parameters for _ in range(2000)])
    top, bottom, left, right = boxes.unbind(1)
    assert bool((top >= 0).all() and (bottom <= 8).all() and (top <= bottom).all())
    assert bool((left >= 0).all() and (right <= 10).all() and (left <= right).all())
    area = ((bottom - top) * (right - left) / 80).mean()
    # Half of the image before clipping, as the share is uniform; less after it.
    assert 0.2 < float(area) < 0.45
    assert int(top.max()) >= 5
    assert int(left.max()) >= 7


def test_mixup_shares_follow_their_beta():
    generator = torch.Generator().manual_seed(0)
    shares = torch.stack([draw_mix("mixup", 2, (8, 8), generator).parameters for _ in range(4000)])
    assert bool(((shares >= 0) & (shares <= 1)).all())
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert float(shares.var()) == pytest.approx(1 / (4 * 2.6), abs=0.005)


def test_mix_refuses_another_number_of_images(images, generator):
    mix = draw_mix("cutmix", 5, (8, 10), generator)
    with pytest.raises(ValueError, match="got 6 images for a mix of 5"):
        mix.apply(images)
